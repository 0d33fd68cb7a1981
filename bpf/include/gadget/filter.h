/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * The filters that most gadgets share: containers, --pid, --tid, --uid, --gid, --comm.
 *
 * Including this header gives the gadget these flags; the host knows them by type and name. Call one of the
 * gadget_should_discard_… functions first thing: an event that nobody wants must cost as little as possible.
 */
#ifndef GADGET_FILTER_H
#define GADGET_FILTER_H

#include <gadget/macros.h>
#include <gadget/mntns_filter.h>

/** 0 = any process. */
const volatile gadget_pid targ_pid = 0;
GADGET_PARAM(targ_pid);

/** 0 = any thread. */
const volatile gadget_tid targ_tid = 0;
GADGET_PARAM(targ_tid);

/** All bits set (-1) = any user. */
const volatile gadget_uid targ_uid = (gadget_uid)-1;
GADGET_PARAM(targ_uid);

/** All bits set (-1) = any group. */
const volatile gadget_gid targ_gid = (gadget_gid)-1;
GADGET_PARAM(targ_gid);

/** Empty = any name; else the whole name of the thread must be equal. */
const volatile gadget_comm targ_comm[TASK_COMM_LEN] = {};
GADGET_PARAM(targ_comm);

static __always_inline bool gadget_should_discard_comm(const char *comm)
{
	if (!targ_comm[0])
		return false;
	for (int i = 0; i < TASK_COMM_LEN; i++) {
		if (comm[i] != targ_comm[i])
			return true;
		if (!comm[i])
			break;
	}
	return false;
}

/** True when an event with these properties is not wanted. `comm` has TASK_COMM_LEN bytes. */
static __always_inline bool gadget_should_discard_data(gadget_mntns_id mntns_id, gadget_pid pid, gadget_tid tid,
						       const char *comm, gadget_uid uid, gadget_gid gid)
{
	return gadget_should_discard_mntns_id(mntns_id) || (targ_pid && pid != targ_pid) ||
	       (targ_tid && tid != targ_tid) || (targ_uid != (gadget_uid)-1 && uid != targ_uid) ||
	       (targ_gid != (gadget_gid)-1 && gid != targ_gid) || gadget_should_discard_comm(comm);
}

/**
 * True when an event caused by the current task is not wanted. Asks the kernel only for what is filtered by: without any
 * filter it costs nothing.
 */
static __always_inline bool gadget_should_discard_data_current(void)
{
	if (gadget_filter_by_mntns && gadget_should_discard_mntns_id(gadget_get_current_mntns_id()))
		return true;
	if (targ_pid || targ_tid) {
		__u64 ids = bpf_get_current_pid_tgid();

		if ((targ_pid && ids >> 32 != targ_pid) || (targ_tid && (__u32)ids != targ_tid))
			return true;
	}
	if (targ_uid != (gadget_uid)-1 || targ_gid != (gadget_gid)-1) {
		__u64 ids = bpf_get_current_uid_gid();

		if ((targ_uid != (gadget_uid)-1 && (__u32)ids != targ_uid) ||
		    (targ_gid != (gadget_gid)-1 && ids >> 32 != targ_gid))
			return true;
	}
	if (targ_comm[0]) {
		char comm[TASK_COMM_LEN];

		bpf_get_current_comm(comm, sizeof(comm));
		return gadget_should_discard_comm(comm);
	}
	return false;
}

#endif
