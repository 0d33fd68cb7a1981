// Loads a socket filter with a map, lets it run a hundred times, and holds it: `workload hold` says READY then, and holds it until its
// input ends, `workload FILE` until FILE is there.
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bpf(int cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	char packet[64] = "";
	union bpf_attr attr;
	int map, prog;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = 4;
	attr.value_size = 64;
	attr.max_entries = 64;
	map = bpf(BPF_MAP_CREATE, &attr);
	if (map < 0)
		return fail("map");
	struct bpf_insn code[] = {
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map },
		{ 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 4096 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insns = (uintptr_t)code;
	attr.insn_cnt = sizeof(code) / sizeof(code[0]);
	attr.license = (uintptr_t)"GPL";
	strcpy(attr.prog_name, "counted");
	prog = bpf(BPF_PROG_LOAD, &attr);
	if (prog < 0)
		return fail("program");
	/* In one call, so that no table is made in the middle of it. */
	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = prog;
	attr.test.data_in = (uintptr_t)packet;
	attr.test.data_size_in = sizeof(packet);
	attr.test.repeat = 100;
	if (bpf(BPF_PROG_TEST_RUN, &attr))
		return fail("run");
	if (argc < 2)
		return 2;
	if (strcmp(argv[1], "hold")) {
		for (int i = 0; access(argv[1], F_OK) && i < 15000; i++)
			usleep(20000);
		return 0;
	}
	puts("READY");
	fflush(stdout);
	while (read(0, packet, sizeof(packet)) > 0)
		;
	return 0;
}
