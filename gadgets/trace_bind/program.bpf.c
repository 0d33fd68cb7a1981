// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_bind: addresses and ports that programs bind TCP and UDP sockets to.
//
// One program at the end of bind(2): the descriptor leads to the socket, which has the address if the call succeeded, and
// otherwise the caller's memory has it.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/sock.h>
#include <gadget/socket_calls.h>
#include <bpf/bpf_tracing.h>

enum bind_options_set : __u8 {
	FREEBIND = 0x01,
	TRANSPARENT = 0x02,
	BIND_ADDRESS_NO_PORT = 0x04,
	REUSEADDRESS = 0x08,
	REUSEPORT = 0x10,
};

enum transport { TCP = GADGET_IPPROTO_TCP, UDP = GADGET_IPPROTO_UDP };

#define INTERFACE_MAX 16

struct event {
	gadget_timestamp timestamp_raw;
	gadget_netns_id netns_id;
	struct gadget_process proc;
	enum transport proto_raw;
	struct gadget_l4endpoint_t addr;
	gadget_errno error_raw;
	enum bind_options_set opts_raw;
	__u32 bound_dev_if;
	char interface[INTERFACE_MAX];
};

const volatile bool ignore_errors = true;
GADGET_PARAM(ignore_errors);

#define PORTS_MAX 128
// Numbers with commas between them; empty: every port.
const volatile char ports[PORTS_MAX] = "";
GADGET_PARAM(ports);

GADGET_TRACER_MAP(events, 256 * 1024);
GADGET_TRACER(bind, events, event);

// Until Linux 6.5 the options were members of their own, since then they are bits of one word.
struct inet_sock___bits {
	__u8 freebind : 1;
	__u8 transparent : 1;
	__u8 bind_address_no_port : 1;
} __attribute__((preserve_access_index));

struct inet_sock___flags {
	unsigned long inet_flags;
} __attribute__((preserve_access_index));

#define FLAG_FREEBIND (1 << 11)
#define FLAG_TRANSPARENT (1 << 15)
#define FLAG_BIND_ADDRESS_NO_PORT (1 << 18)

static __always_inline __u8 options_of(const struct sock *sk)
{
	const struct inet_sock___flags *word = (const void *)sk;
	const struct inet_sock___bits *bits = (const void *)sk;
	__u8 opts = 0;

	if (bpf_core_field_exists(word->inet_flags)) {
		unsigned long flags = BPF_CORE_READ(word, inet_flags);

		opts |= flags & FLAG_FREEBIND ? FREEBIND : 0;
		opts |= flags & FLAG_TRANSPARENT ? TRANSPARENT : 0;
		opts |= flags & FLAG_BIND_ADDRESS_NO_PORT ? BIND_ADDRESS_NO_PORT : 0;
	} else if (bpf_core_field_exists(bits->freebind)) {
		opts |= BPF_CORE_READ_BITFIELD_PROBED(bits, freebind) ? FREEBIND : 0;
		opts |= BPF_CORE_READ_BITFIELD_PROBED(bits, transparent) ? TRANSPARENT : 0;
		opts |= BPF_CORE_READ_BITFIELD_PROBED(bits, bind_address_no_port) ? BIND_ADDRESS_NO_PORT : 0;
	}
	opts |= BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_reuse) ? REUSEADDRESS : 0;
	opts |= BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_reuseport) ? REUSEPORT : 0;
	return opts;
}

#define DEVICE_BUCKETS 256 // NETDEV_HASHENTRIES
#define DEVICES_IN_BUCKET 32

struct hlist_node {
	struct hlist_node *next;
} __attribute__((preserve_access_index));

struct hlist_head {
	struct hlist_node *first;
} __attribute__((preserve_access_index));

struct net___devices {
	struct hlist_head *dev_index_head;
} __attribute__((preserve_access_index));

struct net_device {
	char name[INTERFACE_MAX];
	int ifindex;
	struct hlist_node index_hlist;
} __attribute__((preserve_access_index));

// The name of an interface, from the network namespace's table by number; empty if it is not found.
static __noinline int read_interface(char *name, const struct sock *sk, __u32 index)
{
	struct net___devices *net = (void *)BPF_CORE_READ(sk, __sk_common.skc_net.net);
	struct hlist_head *buckets = BPF_CORE_READ(net, dev_index_head);
	struct hlist_node *node = NULL;

	if (!name)
		return 0;
	bpf_core_read(&node, sizeof(node), &buckets[index & (DEVICE_BUCKETS - 1)].first);
	for (int i = 0; i < DEVICES_IN_BUCKET && node; i++) {
		struct net_device *device =
			(void *)node - bpf_core_field_offset(struct net_device, index_hlist);

		if (BPF_CORE_READ(device, ifindex) == index) {
			bpf_probe_read_kernel_str(name, INTERFACE_MAX, &device->name);
			return 0;
		}
		node = BPF_CORE_READ(node, next);
	}
	return 0;
}

// True if the port is none of those asked for.
static __noinline bool is_other_port(__u16 port)
{
	__u32 number = 0;
	bool digits = false;

	for (int i = 0; i < PORTS_MAX; i++) {
		char c = ports[i];

		if (c >= '0' && c <= '9') {
			number = number * 10 + (c - '0');
			digits = true;
			continue;
		}
		if (digits && number == port)
			return false;
		if (!c)
			break;
		number = 0;
		digits = false;
	}
	return true;
}

// The address that a program gave to bind.
static __always_inline void read_wanted(struct gadget_l4endpoint_t *addr, const void *from, __u16 family)
{
	struct {
		__u16 family;
		__be16 port;
	} given = {};

	bpf_probe_read_user(&given, sizeof(given), from);
	addr->port = bpf_ntohs(given.port);
	// It may be of the other kind, which mostly is why bind failed.
	if (given.family == GADGET_AF_INET || given.family == GADGET_AF_INET6)
		family = given.family;
	addr->version = family == GADGET_AF_INET6 ? 6 : 4;
	__builtin_memset(&addr->addr_raw, 0, sizeof(addr->addr_raw));
	if (family == GADGET_AF_INET6)
		bpf_probe_read_user(&addr->addr_raw, 16, (const char *)from + 8);
	else
		bpf_probe_read_user(&addr->addr_raw, 4, (const char *)from + 4);
}

static __noinline int bind_ended(void *ctx, const struct sock *sk, const void *wanted, long ret)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	struct gadget_l4endpoint_t addr;
	struct event *e;

	if (gadget_l4endpoints_from_sock(&addr, NULL, sk))
		return 0;
	if (addr.proto_raw != GADGET_IPPROTO_TCP && addr.proto_raw != GADGET_IPPROTO_UDP)
		return 0;
	if (ret < 0)
		read_wanted(&addr, wanted, family);
	if (ports[0] && is_other_port(addr.port))
		return 0;
	e = gadget_reserve_buf(&events, sizeof(*e));
	if (!e)
		return 0;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->netns_id = gadget_netns_of_sock(sk);
	gadget_process_populate(&e->proc);
	e->proto_raw = addr.proto_raw;
	e->addr = addr;
	e->error_raw = ret < 0 ? -ret : 0;
	e->opts_raw = options_of(sk);
	e->bound_dev_if = BPF_CORE_READ(sk, __sk_common.skc_bound_dev_if);
	__builtin_memset(e->interface, 0, sizeof(e->interface));
	if (e->bound_dev_if)
		read_interface(e->interface, sk, e->bound_dev_if);
	gadget_submit_buf(ctx, &events, e, sizeof(*e));
	return 0;
}

static __always_inline int call_ended(void *ctx, void *regs, int nr, long ret)
{
	struct gadget_syscall_args args = {};
	struct sock *sk;

	if (!gadget_may_be_socket_call(nr) || (ignore_errors && ret < 0))
		return 0;
	if (gadget_should_discard_data_current())
		return 0;
	if (gadget_socket_call_read(&args, regs, nr) != GADGET_CALL_BIND)
		return 0;
	sk = gadget_sock_of_fd((struct task_struct *)bpf_get_current_task(), args.a[0]);
	return sk ? bind_ended(ctx, sk, (const void *)args.a[1], ret) : 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(ig_bind, struct pt_regs *regs, long ret)
{
	return call_ended(ctx, regs, gadget_syscall_nr_direct(regs), ret);
}

// The same where the kernel has no BTF of its own for tp_btf to use.
SEC("raw_tp/sys_exit")
int ig_bind_raw(struct bpf_raw_tracepoint_args *ctx)
{
	void *regs = (void *)ctx->args[0];

	return call_ended(ctx, regs, gadget_syscall_nr_probed(regs), ctx->args[1]);
}

char LICENSE[] SEC("license") = "GPL";
