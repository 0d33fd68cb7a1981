// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// profile_tcprtt: round-trip times of TCP connections, as a histogram.
//
// The kernel keeps a smoothed round-trip time for every connection; it is looked at with each segment that comes in.

#include <gadget/histogram.h>
#include <gadget/macros.h>
#include <gadget/maps.h>
#include <gadget/sock.h>
#include <bpf/bpf_tracing.h>

// There is one histogram. The kernel wants a key, and one that is shown would say nothing.
struct hist_key {
	__u8 __unused;
};

struct hist {
	gadget_histogram_slot__u32 latency[GADGET_HISTOGRAM_SLOTS];
};

// Local and remote port; 0: any.
const volatile __u16 targ_sport = 0;
GADGET_PARAM(targ_sport);

const volatile __u16 targ_dport = 0;
GADGET_PARAM(targ_dport);

const volatile bool targ_ms = false;
GADGET_PARAM(targ_ms);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct hist_key);
	__type(value, struct hist);
} hists SEC(".maps");

GADGET_MAPITER(tcprtt, hists);

static const struct hist nothing;

struct tcp_sock___rtt {
	__u32 srtt_us; // times eight
} __attribute__((preserve_access_index));

static __noinline int segment_came(const struct sock *sk)
{
	const struct tcp_sock___rtt *tcp = (const void *)sk;
	struct hist_key key = {};
	struct hist *hist;
	__u64 rtt;

	if (targ_sport && BPF_CORE_READ(sk, __sk_common.skc_num) != targ_sport)
		return 0;
	if (targ_dport && bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport)) != targ_dport)
		return 0;
	rtt = BPF_CORE_READ(tcp, srtt_us) >> 3;
	if (targ_ms)
		rtt /= 1000;
	hist = gadget_lookup_or_insert(&hists, &key, &nothing);
	if (hist)
		gadget_histogram_add(hist->latency, GADGET_HISTOGRAM_SLOTS, rtt);
	return 0;
}

struct sk_buff;

SEC("tp_btf/tcp_probe")
int BPF_PROG(ig_tcprtt, struct sock *sk, struct sk_buff *skb)
{
	return segment_came(sk);
}

// The same where the kernel has no BTF of its own for tp_btf to use.
SEC("raw_tp/tcp_probe")
int ig_tcprtt_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return segment_came((const struct sock *)ctx->args[0]);
}

char LICENSE[] SEC("license") = "GPL";
