// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// trace_dns: DNS queries and responses, over UDP and TCP, as they pass through a network namespace.
//
// The packets are found and copied here; the Wasm half reads what is in them. Queries are remembered until their response
// comes, which tells the latency.

#include <gadget/common.h>
#include <gadget/filter.h>
#include <gadget/heap.h>
#include <gadget/maps.h>
#include <gadget/packet.h>
#include <gadget/recent.h>
#include <gadget/sockets.h>
#include <gadget/socket_paths.h>
#include <gadget/stream_gap.h>

// Bytes of a message that are copied; of a longer one the event says so. EDNS rarely allows more than 4096.
#define MESSAGE_MAX 4096
#define DNS_HEADER 12
// Messages in one TCP segment that are looked at.
#define MESSAGES_PER_SEGMENT 8
#define QUERIES_MAX 8192
#define STREAMS_MAX 4096
// Nanoseconds after which nothing more is expected: of a query that nobody answers, of a message whose rest does not come.
#define GIVEN_UP 10000000000ULL

// Second word of a message.
#define DNS_QR 0x8000
#define DNS_OPCODE 0x7800
#define DNS_TC 0x0200
#define DNS_RD 0x0100
#define DNS_RA 0x0080
#define DNS_ZERO 0x0040

struct event {
	gadget_timestamp timestamp_raw;
	struct gadget_process proc;
	gadget_netns_id netns_id;
	struct gadget_l4endpoint_t src;
	struct gadget_l4endpoint_t dst;
	struct gadget_l3endpoint_t nameserver;
	enum gadget_packet_type pkt_type_raw;
	gadget_duration latency_ns_raw;
	bool qr_raw;
	bool tc;
	bool rd;
	bool ra;
	bool truncated;
	__u32 len;
	__u32 data_len;
	// Bytes of data before the message: 0, or a struct gadget_socket_paths.
	__u32 paths_len;
	// Last, because only as much is sent as is used.
	__u8 data[sizeof(struct gadget_socket_paths) + MESSAGE_MAX];
};

// `53,5353`: DNS and multicast DNS.
const volatile __u16 port = 53;
GADGET_PARAM(port);

const volatile __u16 mdns_port = 5353;
GADGET_PARAM(mdns_port);

const volatile bool paths = false;
GADGET_PARAM(paths);

GADGET_TRACER_MAP(events, 1024 * 1024);
GADGET_TRACER(dns, events, event);
GADGET_HEAP(event_heap, sizeof(struct event));

// A query, from the side of who asked.
struct query_key {
	union gadget_ip_addr_t client;
	union gadget_ip_addr_t server;
	__u32 netns;
	__u16 client_port;
	__u16 server_port;
	__u16 id;
	__u8 proto;
	__u8 version;
};

GADGET_RECENT_MAP(queries, struct query_key, __u64, QUERIES_MAX)

// An answer may still come: without its query it has no latency.
static __always_inline bool queries_goes(void *ctx, __u64 *asked, bool must)
{
	(void)ctx;
	if (bpf_ktime_get_boot_ns() - *asked > GIVEN_UP)
		return true;
	if (must)
		gadget_count(&gadget_map_full);
	return false;
}

// One direction of a TCP connection.
struct stream_key {
	union gadget_ip_addr_t src;
	union gadget_ip_addr_t dst;
	__u32 netns;
	__u32 pkt_type;
	__u16 sport;
	__u16 dport;
};

// Where the next segment continues.
struct stream {
	// Of the latest segment.
	__u64 time;
	__u32 next_seq;
	// Bytes of a message that are still to come.
	__u32 rest;
	// All of it is to come: the length came alone.
	__u32 whole;
	__u32 pad;
};

GADGET_RECENT_MAP(streams, struct stream_key, struct stream, STREAMS_MAX)

// Between two messages nothing has to be known of a stream. In the middle of one, it is lost with what follows it.
static __always_inline bool streams_goes(void *ctx, struct stream *s, bool must)
{
	(void)ctx;
	if (!s->rest || bpf_ktime_get_boot_ns() - s->time > GIVEN_UP)
		return true;
	if (must)
		gadget_count(&gadget_map_full);
	return false;
}

// The time between a query that was sent and its response that arrived; 0: one of them was not seen.
static __always_inline __u64 latency(const struct event *e, __u16 id)
{
	const struct gadget_l4endpoint_t *client = e->qr_raw ? &e->dst : &e->src;
	const struct gadget_l4endpoint_t *server = e->qr_raw ? &e->src : &e->dst;
	struct query_key key = {};
	__u64 *asked, took;

	if (e->qr_raw == (e->pkt_type_raw == OUTGOING))
		return 0;
	__builtin_memcpy(&key.client, &client->addr_raw, sizeof(key.client));
	__builtin_memcpy(&key.server, &server->addr_raw, sizeof(key.server));
	key.client_port = client->port;
	key.server_port = server->port;
	key.netns = e->netns_id;
	key.id = id;
	key.proto = e->src.proto_raw;
	key.version = e->src.version;
	if (!e->qr_raw) {
		queries_remember(NULL, &key, &e->timestamp_raw);
		return 0;
	}
	asked = bpf_map_lookup_elem(&queries, &key);
	if (!asked)
		return 0;
	took = e->timestamp_raw - *asked;
	bpf_map_delete_elem(&queries, &key);
	return took;
}

// Fills what all messages of a packet have in common.
static __always_inline bool begin(struct __sk_buff *skb, const struct gadget_packet *p,
				  const struct gadget_socket_value *owner)
{
	struct event *e = gadget_heap_get(&event_heap);

	if (!e)
		return false;
	e->timestamp_raw = bpf_ktime_get_boot_ns();
	e->netns_id = gadget_packet_netns(skb);
	gadget_process_populate_from_socket(owner, &e->proc);
	gadget_packet_endpoint(&e->src, &p->src, p->sport, p);
	gadget_packet_endpoint(&e->dst, &p->dst, p->dport, p);
	e->pkt_type_raw = skb->pkt_type;
	e->paths_len = paths ? sizeof(struct gadget_socket_paths) : 0;
	if (paths) {
		struct gadget_socket_paths *known = gadget_socket_paths_of(owner);

		if (known)
			bpf_probe_read_kernel(e->data, sizeof(*known), known);
		else
			gadget_zero(e->data, sizeof(*known));
	}
	return true;
}

// Sends one message: `there` of its `len` bytes lie at `at`. A global function, so that the verifier looks at it once.
__attribute__((noinline)) int message(struct __sk_buff *skb, __u32 at, __u32 there, __u32 len)
{
	const __u32 before = paths ? sizeof(struct gadget_socket_paths) : 0;
	struct event *e = gadget_heap_get(&event_heap);
	__be16 head[2] = {};
	__u32 copied = there;
	__u16 flags;

	if (!e)
		return 0;
	if (copied > MESSAGE_MAX)
		copied = MESSAGE_MAX;
	if (copied) {
		// The verifier forgets the bound on some kernels, and 0 is not allowed.
		copied = ((copied - 1) & (MESSAGE_MAX - 1)) + 1;
		if (bpf_skb_load_bytes(skb, at, e->data + before, copied))
			return 0;
	}
	if (copied >= sizeof(head))
		bpf_skb_load_bytes(skb, at, head, sizeof(head));
	flags = bpf_ntohs(head[1]);
	e->qr_raw = !!(flags & DNS_QR);
	e->tc = !!(flags & DNS_TC);
	e->rd = !!(flags & DNS_RD);
	e->ra = !!(flags & DNS_RA);
	e->truncated = copied < len;
	e->len = len;
	e->data_len = copied;
	if (e->qr_raw)
		__builtin_memcpy(&e->nameserver.addr_raw, &e->src.addr_raw, sizeof(e->nameserver.addr_raw));
	else
		__builtin_memcpy(&e->nameserver.addr_raw, &e->dst.addr_raw, sizeof(e->nameserver.addr_raw));
	e->nameserver.version = e->src.version;
	e->latency_ns_raw = copied >= DNS_HEADER ? latency(e, bpf_ntohs(head[0])) : 0;
	gadget_output_buf(skb, &events, e, offsetof(struct event, data) + before + copied);
	return 0;
}

// Whether a length and what follows it can be the beginning of a message: after a gap in a stream nothing says so.
static __always_inline bool plausible(struct __sk_buff *skb, __u32 at, __u32 there, __u32 len)
{
	__be16 head[3];

	if (len < DNS_HEADER)
		return false;
	if (there < sizeof(head))
		return true;
	if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
		return false;
	return !(bpf_ntohs(head[1]) & (DNS_OPCODE | DNS_ZERO)) && bpf_ntohs(head[2]) <= 1;
}

// Messages over TCP come each after its length. Kept of a stream is where the next message begins.
static __always_inline void segment(struct __sk_buff *skb, const struct gadget_packet *p)
{
	__u32 at = p->payload, left = p->payload_len;
	struct stream_key key = {};
	struct stream now = {};
	struct stream *known;
	__u32 seq = p->seq;
	bool in_step = false;

	key.src = p->src;
	key.dst = p->dst;
	key.netns = gadget_packet_netns(skb);
	key.pkt_type = skb->pkt_type;
	key.sport = p->sport;
	key.dport = p->dport;
	if (p->tcp_flags & (GADGET_TCP_SYN | GADGET_TCP_RST))
		bpf_map_delete_elem(&streams, &key);
	if (p->tcp_flags & GADGET_TCP_SYN) {
		// Here the stream begins, and the first message.
		seq++;
		in_step = true;
	} else if (!left) {
		if (p->tcp_flags & GADGET_TCP_FIN)
			bpf_map_delete_elem(&streams, &key);
		return;
	}
	known = bpf_map_lookup_elem(&streams, &key);
	if (known) {
		// Sent again: it has been shown.
		if ((__s32)(seq - known->next_seq) < 0)
			return;
		in_step = seq == known->next_seq;
		if (in_step && known->rest) {
			__u32 part = known->rest < left ? known->rest : left;

			if (known->whole)
				message(skb, at, part, known->rest);
			at += part;
			left -= part;
			now.rest = known->rest - part;
		}
		// What lies between is missing, or comes too late to be told from what was sent again.
		if (!in_step)
			gadget_count(&gadget_stream_gap);
	}
	for (int i = 0; i < MESSAGES_PER_SEGMENT && left >= 2 && !now.rest; i++) {
		__be16 prefix;
		__u32 len, there;

		if (bpf_skb_load_bytes(skb, at, &prefix, sizeof(prefix)))
			return;
		at += 2;
		left -= 2;
		len = bpf_ntohs(prefix);
		there = len < left ? len : left;
		if (!in_step && !plausible(skb, at, there, len))
			break;
		in_step = true;
		now.rest = len - there;
		now.whole = !there && len;
		if (there)
			message(skb, at, there, len);
		at += there;
		left -= there;
	}
	// In the middle of something: each of the next segments may be the one where a message begins.
	if (!in_step || p->tcp_flags & (GADGET_TCP_FIN | GADGET_TCP_RST)) {
		bpf_map_delete_elem(&streams, &key);
		return;
	}
	now.next_seq = seq + p->payload_len;
	// More messages than are looked at, or one whose length is cut in two: lost, and counted as such.
	if (left && !now.rest) {
		gadget_count(&gadget_stream_gap);
		now.next_seq--;
	}
	now.time = bpf_ktime_get_boot_ns();
	streams_remember(NULL, &key, &now);
}

static __always_inline bool is_dns(const struct gadget_packet *p)
{
	if (p->sport == port || p->dport == port)
		return true;
	return p->proto == GADGET_IPPROTO_UDP && (p->sport == mdns_port || p->dport == mdns_port);
}

SEC("socket1")
int ig_trace_dns(struct __sk_buff *skb)
{
	struct gadget_socket_value *owner;
	struct gadget_packet *p;

	if (skb->pkt_type == OTHERHOST)
		return 0;
	p = gadget_packet_parse(skb);
	if (!p || !is_dns(p))
		return 0;
	owner = gadget_socket_of_parsed(skb, p);
	if (gadget_should_discard_socket(owner) || !begin(skb, p, owner))
		return 0;
	if (p->proto == GADGET_IPPROTO_TCP)
		segment(skb, p);
	else
		message(skb, p->payload, p->payload_here, p->payload_len);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
