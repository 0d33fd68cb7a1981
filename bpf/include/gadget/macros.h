/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/**
 * Markers: how a BPF object tells the host what it offers.
 *
 * A marker is a global `const void *` whose *name* carries the message; its value is never read. The host finds the
 * names in the object's BTF, so they cost eight bytes of .bss and no instructions. Parts of a name are separated by
 * three underscores: use no such run in your own names.
 *
 * Works on every kernel: nothing here reaches the kernel.
 */
#ifndef GADGET_MACROS_H
#define GADGET_MACROS_H

/** A marker by that name. */
#define GADGET_MARK(name) const void *name __attribute__((unused))

/** Keeps `struct type` in the object's BTF although no code may mention it. */
#define GADGET_KEEP_TYPE(name, type) const struct type *name __attribute__((unused))

/**
 * A data source of events: everything written to the ring buffer `map` is a `struct type`.
 *
 * @param name name of the data source, as users see it
 * @param map  a map declared with GADGET_TRACER_MAP
 * @param type struct tag. A record may be shorter than the struct: the host reads zeros beyond its end.
 */
#define GADGET_TRACER(name, map, type)                                                                                 \
	GADGET_MARK(gadget_tracer_##name##___##map##___##type);                                                        \
	GADGET_KEEP_TYPE(__gadget_tracer_type_##name, type)

/* GADGET_ITER for one, two or three programs. */
#define GADGET_ITER_1(name, type, p1) GADGET_MARK(gadget_iter_##name##___##type##___##p1)
#define GADGET_ITER_2(name, type, p1, p2) GADGET_MARK(gadget_iter_##name##___##type##___##p1##___##p2)
#define GADGET_ITER_3(name, type, p1, p2, p3) GADGET_MARK(gadget_iter_##name##___##type##___##p1##___##p2##___##p3)
#define GADGET_ITER_PICK(_1, _2, _3, which, ...) which

/**
 * A data source that is a table: the given `iter/…` programs write one `struct type` per row with bpf_seq_write.
 * Rows have the full size of the struct. One to three programs.
 */
#define GADGET_ITER(name, type, ...)                                                                                   \
	GADGET_ITER_PICK(__VA_ARGS__, GADGET_ITER_3, GADGET_ITER_2, GADGET_ITER_1, )(name, type, __VA_ARGS__);         \
	GADGET_KEEP_TYPE(unusedevent_##name##___##type, type)

/** Older name of GADGET_ITER. */
#define GADGET_SNAPSHOTTER(name, type, ...) GADGET_ITER(name, type, __VA_ARGS__)

/** A data source which is the content of the hash map `map`: key and value must be structs; read and emptied periodically. */
#define GADGET_MAPITER(name, map) GADGET_MARK(gadget_mapiter_##name##___##map)

/** The map an `iter/bpf_map_elem` program walks. */
#define GADGET_ITER_TARGET_MAP(prog, map) GADGET_MARK(gadget_mapelem_iter_target_##prog##___##map)

/** The socket map an sk_skb or sk_msg program belongs to. */
#define GADGET_SK_TARGET_MAP(prog, map) GADGET_MARK(gadget_sk_prog_target_##prog##___##map)

/**
 * Makes the global `var` a parameter that users set; the host writes it before the object is loaded.
 * `var` must be `const volatile`; its initial value is the default. Its flag and description stand in gadget.yaml
 * (`params.ebpf.<var>`).
 */
#define GADGET_PARAM(var) GADGET_MARK(gadget_param_##var)

#endif
