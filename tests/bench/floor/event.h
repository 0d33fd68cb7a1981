/* SPDX-License-Identifier: Apache-2.0 */
/* The record between the floor's probe and its reader. */
struct event {
	unsigned long long timestamp;
	unsigned long long mntns;
	unsigned int pid, tid, ppid, uid, gid;
	int ret;
	unsigned int flags, mode;
	char comm[16];
	char pcomm[16];
	char fname[224];
};
