// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_sni: the server names in the first message of TLS connections, on any port.
//
// A TLS client begins with a ClientHello, in clear. It is found by its first bytes, put together from as many TCP segments
// as it takes, and sent to the Wasm half, which finds the name in it.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/heap.h>
#include <gadget/maps.h>
#include <gadget/packet.h>
#include <gadget/recent.h>
#include <gadget/sockets.h>

// Bytes of a ClientHello that are kept. Those with post-quantum keys have some 1,800.
#define HELLO_MAX 4096
// Hellos that came in part and wait for the rest.
#define PARTS_MAX 256
#define DONE_MAX 4096
// Nanoseconds after which the rest of a hello is no longer expected.
#define GIVEN_UP 10000000000ULL
// TLS records that one hello is spread over.
#define RECORDS_MAX 4

#define RECORD_HEADER 5
#define RECORD_HANDSHAKE 0x16
#define HANDSHAKE_HEADER 4
#define HANDSHAKE_CLIENT_HELLO 1

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	gadget_netns_id netns_id;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	enum gadget_packet_type pkt_type_raw;
	bool truncated;
	__u32 data_len;
	// Last, because only as much is sent as is used. Twice as long as that, so that the verifier sees that a segment
	// fits behind what is there.
	__u8 data[2 * HELLO_MAX];
};

GADGET_TRACER_MAP(events, 1024 * 1024);
GADGET_TRACER(sni, events, event);

// One direction of a connection, as one interface sees it.
struct stream_key {
	union gadget_ip_addr_t src;
	union gadget_ip_addr_t dst;
	__u32 netns;
	__u32 pkt_type;
	__u32 ifindex;
	__u16 sport;
	__u16 dport;
};

// A hello as far as it came.
struct part {
	__u32 next_seq;
	__u32 pad;
	struct event e;
};

GADGET_HEAP(part_heap, sizeof(struct part));

GADGET_RECENT_MAP(parts, struct stream_key, struct part, PARTS_MAX)

// Where the hello of a connection began: one that is sent again is shown once, or, where the oldest made room, twice.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DONE_MAX);
	__type(key, struct stream_key);
	__type(value, __u32);
} done SEC(".maps");

// Whether these can be the first bytes of a hello; `len` of them are there.
static __always_inline bool begins(const __u8 *head, __u32 len)
{
	return head[0] == RECORD_HANDSHAKE && (len < 2 || head[1] == 3) && (len < 3 || head[2] <= 4) &&
	       (len < 4 || head[3] < 0x41) && (len < 6 || head[5] == HANDSHAKE_CLIENT_HELLO);
}

// An index into the data. Written so that the compiler cannot do the bounding elsewhere: before Linux 6.2 the verifier sees it
// only in the register that is used.
static __always_inline __u64 inside(__u32 at)
{
	__u64 index = at;

	asm volatile("%[index] &= %[mask]" : [index] "+r"(index) : [mask] "i"(HELLO_MAX - 1));
	return index;
}

enum state { WAITS, COMPLETE, NO_HELLO };

// Walks over the TLS records to where the hello ends.
static __always_inline enum state state_of(const struct event *e)
{
	__u32 have = e->data_len, at = 0, got = 0, all;

	if (!begins(e->data, have))
		return NO_HELLO;
	if (have < RECORD_HEADER + HANDSHAKE_HEADER)
		return WAITS;
	// Two bytes of a hello's length are enough for anybody, and it fills its record: else it is none.
	all = HANDSHAKE_HEADER + ((__u32)e->data[7] << 8 | e->data[8]);
	if (e->data[6] || all < ((__u32)e->data[3] << 8 | e->data[4]))
		return NO_HELLO;
	for (int i = 0; i < RECORDS_MAX; i++) {
		__u64 head;
		__u32 len;

		if (have >= HELLO_MAX)
			return COMPLETE;
		if (have < at + RECORD_HEADER)
			return WAITS;
		head = inside(at);
		// What follows is no part of it: the other half says what is wrong.
		if (e->data[head] != RECORD_HANDSHAKE)
			return COMPLETE;
		len = (__u32)e->data[head + 3] << 8 | e->data[head + 4];
		got += len;
		at += RECORD_HEADER + len;
		if (got >= all)
			return have >= at - (got - all) ? COMPLETE : WAITS;
		if (at >= HELLO_MAX)
			return WAITS;
	}
	return COMPLETE;
}

static __always_inline void send(struct __sk_buff *skb, struct event *e, bool truncated)
{
	__u32 len = e->data_len;

	e->truncated = truncated || len >= HELLO_MAX;
	if (len > HELLO_MAX)
		len = HELLO_MAX;
	gadget_output_buf(skb, &events, e, offsetof(struct event, data) + (len & (2 * HELLO_MAX - 1)));
}

// What made room is shown as far as it came.
static __always_inline bool parts_goes(void *ctx, struct part *part, bool must)
{
	bool goes = must || bpf_ktime_get_boot_ns() - part->e.timestamp_raw > GIVEN_UP;

	if (goes)
		send(ctx, &part->e, true);
	return goes;
}

// Puts the segment behind what is there. False if the packet does not hold what it says.
static __always_inline bool append(struct __sk_buff *skb, struct event *e, __u32 at, __u32 len)
{
	__u32 have = e->data_len;

	if (have >= HELLO_MAX || !len)
		return true;
	if (len > HELLO_MAX - have)
		len = HELLO_MAX - have;
	have &= HELLO_MAX - 1;
	len = ((len - 1) & (HELLO_MAX - 1)) + 1;
	if (bpf_skb_load_bytes(skb, at, &e->data[have], len))
		return false;
	e->data_len = have + len;
	return true;
}

static __always_inline void begin(struct __sk_buff *skb, const struct gadget_packet *p, struct event *e,
				  const struct gadget_socket_value *owner)
{
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->netns_id = gadget_packet_netns(skb);
	gadget_process_populate_from_socket(owner, &e->proc);
	gadget_packet_endpoint(&e->src, &p->src, p->sport, p);
	gadget_packet_endpoint(&e->dst, &p->dst, p->dport, p);
	e->pkt_type_raw = skb->pkt_type;
	e->data_len = 0;
}

// A segment behind the first of a hello.
static __always_inline void proceed(struct __sk_buff *skb, const struct gadget_packet *p, const struct stream_key *key,
				    struct part *part)
{
	__s32 ahead = p->seq - part->next_seq;
	enum state state;

	// Sent again.
	if (ahead < 0 && p->payload_len && !(p->tcp_flags & GADGET_TCP_SYN))
		return;
	// A gap, the end of the connection, or another one in its place: more will not come.
	if (ahead > 0 || p->tcp_flags & (GADGET_TCP_RST | GADGET_TCP_SYN) || !append(skb, &part->e, p->payload, p->payload_len)) {
		if (state_of(&part->e) != NO_HELLO)
			send(skb, &part->e, true);
		bpf_map_delete_elem(&parts, key);
		return;
	}
	part->next_seq = p->seq + p->payload_len;
	state = state_of(&part->e);
	if (state == WAITS && p->tcp_flags & GADGET_TCP_FIN)
		send(skb, &part->e, true);
	else if (state == WAITS)
		return;
	else if (state == COMPLETE)
		send(skb, &part->e, false);
	bpf_map_delete_elem(&parts, key);
}

SEC("socket1")
int ig_trace_sni(struct __sk_buff *skb)
{
	struct gadget_socket_value *owner;
	struct gadget_packet *p;
	struct stream_key key = {};
	enum state state;
	struct part *part;
	__u8 head[6] = {};
	__u32 *before, len;

	if (skb->pkt_type == OTHERHOST)
		return 0;
	p = gadget_packet_parse(skb);
	if (!p || p->proto != GADGET_IPPROTO_TCP)
		return 0;
	key.src = p->src;
	key.dst = p->dst;
	key.netns = gadget_packet_netns(skb);
	key.pkt_type = skb->pkt_type;
	key.ifindex = skb->ifindex;
	key.sport = p->sport;
	key.dport = p->dport;
	part = bpf_map_lookup_elem(&parts, &key);
	if (part) {
		proceed(skb, p, &key, part);
		return 0;
	}
	len = p->payload_len;
	if (!len)
		return 0;
	if (len >= sizeof(head)) {
		len = sizeof(head);
		if (bpf_skb_load_bytes(skb, p->payload, head, sizeof(head)))
			return 0;
	} else if (bpf_skb_load_bytes(skb, p->payload, head, 1)) {
		return 0;
	} else {
		// The rest is looked at when there is more of it.
		len = 1;
	}
	if (!begins(head, len))
		return 0;
	before = bpf_map_lookup_elem(&done, &key);
	if (before && *before == p->seq)
		return 0;
	owner = gadget_socket_of_parsed(skb, p);
	part = gadget_heap_get(&part_heap);
	if (!part || gadget_should_discard_socket(owner))
		return 0;
	begin(skb, p, &part->e, owner);
	if (!append(skb, &part->e, p->payload, p->payload_len))
		return 0;
	state = state_of(&part->e);
	if (state == NO_HELLO)
		return 0;
	bpf_map_update_elem(&done, &key, &p->seq, BPF_ANY);
	if (state == COMPLETE) {
		send(skb, &part->e, false);
		return 0;
	}
	if (p->tcp_flags & GADGET_TCP_FIN) {
		send(skb, &part->e, true);
		return 0;
	}
	part->next_seq = p->seq + p->payload_len;
	parts_remember(skb, &key, part);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
