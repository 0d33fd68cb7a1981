// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_lsm: the questions that the kernel asks its security modules. One program a hook, of which only those are loaded that
// were chosen. Each answers what it would without this gadget.

#include <gadget/common.h>
#include <gadget/filter.h>
#include "hooks.h"

// The names are what users see.
#define NAME(hook) hook,
enum lsm_hook_name { LSM_HOOKS(NAME) };

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	enum lsm_hook_name tracepoint_raw;
};

const volatile bool trace_all = false;
GADGET_PARAM(trace_all);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(lsm, events, event);

static __attribute__((noinline)) int asked(void *ctx, enum lsm_hook_name hook)
{
	struct event *e;

	if (gadget_should_discard_data_current())
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	gadget_process_populate(&e->proc);
	e->tracepoint_raw = hook;
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

#define PROGRAM(hook)                                                                                                  \
	const volatile bool trace_##hook = false;                                                                      \
	GADGET_PARAM(trace_##hook);                                                                                    \
	SEC("lsm/" #hook)                                                                                              \
	int lsm_##hook(void *ctx)                                                                                      \
	{                                                                                                              \
		asked(ctx, hook);                                                                                      \
		return 0;                                                                                              \
	}

LSM_HOOKS(PROGRAM)

char LICENSE[] SEC("license") = "GPL";
