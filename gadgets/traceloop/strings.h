/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Which arguments of a system call are text that goes in: bit i for argument i is a string, TEXT_BUFFER a buffer in
 * argument 1 with its length in argument 2. By number.
 */
#ifndef TRACELOOP_STRINGS_H
#define TRACELOOP_STRINGS_H

#define TEXT_BUFFER 0x80

#if defined(__TARGET_ARCH_x86)

static const __u8 native_text[1024] = {
	[1] = TEXT_BUFFER, // write
	[2] = 1, // open
	[4] = 1, // stat
	[6] = 1, // lstat
	[18] = TEXT_BUFFER, // pwrite64
	[21] = 1, // access
	[44] = TEXT_BUFFER, // sendto
	[59] = 1, // execve
	[76] = 1, // truncate
	[80] = 1, // chdir
	[82] = 3, // rename
	[83] = 1, // mkdir
	[84] = 1, // rmdir
	[85] = 1, // creat
	[86] = 3, // link
	[87] = 1, // unlink
	[88] = 3, // symlink
	[89] = 1, // readlink
	[90] = 1, // chmod
	[92] = 1, // chown
	[94] = 1, // lchown
	[132] = 1, // utime
	[133] = 1, // mknod
	[134] = 1, // uselib
	[137] = 1, // statfs
	[155] = 3, // pivot_root
	[161] = 1, // chroot
	[163] = 1, // acct
	[165] = 3, // mount
	[166] = 1, // umount2
	[167] = 1, // swapon
	[168] = 1, // swapoff
	[176] = 1, // delete_module
	[188] = 3, // setxattr
	[189] = 3, // lsetxattr
	[190] = 2, // fsetxattr
	[191] = 3, // getxattr
	[192] = 3, // lgetxattr
	[193] = 2, // fgetxattr
	[194] = 1, // listxattr
	[195] = 1, // llistxattr
	[197] = 3, // removexattr
	[198] = 3, // lremovexattr
	[199] = 2, // fremovexattr
	[235] = 1, // utimes
	[240] = 1, // mq_open
	[241] = 1, // mq_unlink
	[248] = 3, // add_key
	[249] = 3, // request_key
	[254] = 2, // inotify_add_watch
	[257] = 2, // openat
	[258] = 2, // mkdirat
	[259] = 2, // mknodat
	[260] = 2, // fchownat
	[261] = 2, // futimesat
	[262] = 2, // newfstatat
	[263] = 2, // unlinkat
	[264] = 10, // renameat
	[265] = 10, // linkat
	[266] = 5, // symlinkat
	[267] = 2, // readlinkat
	[268] = 2, // fchmodat
	[269] = 2, // faccessat
	[280] = 2, // utimensat
	[303] = 2, // name_to_handle_at
	[313] = 2, // finit_module
	[316] = 10, // renameat2
	[319] = 1, // memfd_create
	[322] = 2, // execveat
	[332] = 2, // statx
	[428] = 2, // open_tree
	[429] = 10, // move_mount
	[430] = 1, // fsopen
	[431] = 4, // fsconfig
	[433] = 2, // fspick
	[437] = 2, // openat2
	[439] = 2, // faccessat2
	[442] = 2, // mount_setattr
	[520] = 1, // execve
	[545] = 2, // execveat
};

static const __u8 compat_text[512] = {
	[4] = TEXT_BUFFER, // write
	[5] = 1, // open
	[8] = 1, // creat
	[9] = 3, // link
	[10] = 1, // unlink
	[11] = 1, // execve
	[12] = 1, // chdir
	[14] = 1, // mknod
	[15] = 1, // chmod
	[16] = 1, // lchown
	[18] = 1, // oldstat
	[21] = 3, // mount
	[22] = 1, // umount
	[30] = 1, // utime
	[33] = 1, // access
	[38] = 3, // rename
	[39] = 1, // mkdir
	[40] = 1, // rmdir
	[51] = 1, // acct
	[52] = 1, // umount2
	[61] = 1, // chroot
	[83] = 3, // symlink
	[84] = 1, // oldlstat
	[85] = 1, // readlink
	[86] = 1, // uselib
	[87] = 1, // swapon
	[92] = 1, // truncate
	[99] = 1, // statfs
	[106] = 1, // stat
	[107] = 1, // lstat
	[115] = 1, // swapoff
	[129] = 1, // delete_module
	[181] = TEXT_BUFFER, // pwrite64
	[182] = 1, // chown
	[193] = 1, // truncate64
	[195] = 1, // stat64
	[196] = 1, // lstat64
	[198] = 1, // lchown32
	[212] = 1, // chown32
	[217] = 3, // pivot_root
	[226] = 3, // setxattr
	[227] = 3, // lsetxattr
	[228] = 2, // fsetxattr
	[229] = 3, // getxattr
	[230] = 3, // lgetxattr
	[231] = 2, // fgetxattr
	[232] = 1, // listxattr
	[233] = 1, // llistxattr
	[235] = 3, // removexattr
	[236] = 3, // lremovexattr
	[237] = 2, // fremovexattr
	[268] = 1, // statfs64
	[271] = 1, // utimes
	[277] = 1, // mq_open
	[278] = 1, // mq_unlink
	[286] = 3, // add_key
	[287] = 3, // request_key
	[292] = 2, // inotify_add_watch
	[295] = 2, // openat
	[296] = 2, // mkdirat
	[297] = 2, // mknodat
	[298] = 2, // fchownat
	[299] = 2, // futimesat
	[300] = 2, // fstatat64
	[301] = 2, // unlinkat
	[302] = 10, // renameat
	[303] = 10, // linkat
	[304] = 5, // symlinkat
	[305] = 2, // readlinkat
	[306] = 2, // fchmodat
	[307] = 2, // faccessat
	[320] = 2, // utimensat
	[341] = 2, // name_to_handle_at
	[350] = 2, // finit_module
	[353] = 10, // renameat2
	[356] = 1, // memfd_create
	[358] = 2, // execveat
	[369] = TEXT_BUFFER, // sendto
	[383] = 2, // statx
	[412] = 2, // utimensat_time64
	[428] = 2, // open_tree
	[429] = 10, // move_mount
	[430] = 1, // fsopen
	[431] = 4, // fsconfig
	[433] = 2, // fspick
	[437] = 2, // openat2
	[439] = 2, // faccessat2
	[442] = 2, // mount_setattr
};

#else

static const __u8 native_text[1024] = {
	[5] = 3, // setxattr
	[6] = 3, // lsetxattr
	[7] = 2, // fsetxattr
	[8] = 3, // getxattr
	[9] = 3, // lgetxattr
	[10] = 2, // fgetxattr
	[11] = 1, // listxattr
	[12] = 1, // llistxattr
	[14] = 3, // removexattr
	[15] = 3, // lremovexattr
	[16] = 2, // fremovexattr
	[27] = 2, // inotify_add_watch
	[33] = 2, // mknodat
	[34] = 2, // mkdirat
	[35] = 2, // unlinkat
	[36] = 5, // symlinkat
	[37] = 10, // linkat
	[38] = 10, // renameat
	[39] = 1, // umount2
	[40] = 3, // mount
	[41] = 3, // pivot_root
	[43] = 1, // statfs
	[45] = 1, // truncate
	[48] = 2, // faccessat
	[49] = 1, // chdir
	[51] = 1, // chroot
	[53] = 2, // fchmodat
	[54] = 2, // fchownat
	[56] = 2, // openat
	[64] = TEXT_BUFFER, // write
	[68] = TEXT_BUFFER, // pwrite64
	[78] = 2, // readlinkat
	[79] = 2, // newfstatat
	[88] = 2, // utimensat
	[89] = 1, // acct
	[106] = 1, // delete_module
	[180] = 1, // mq_open
	[181] = 1, // mq_unlink
	[206] = TEXT_BUFFER, // sendto
	[217] = 3, // add_key
	[218] = 3, // request_key
	[221] = 1, // execve
	[224] = 1, // swapon
	[225] = 1, // swapoff
	[264] = 2, // name_to_handle_at
	[273] = 2, // finit_module
	[276] = 10, // renameat2
	[279] = 1, // memfd_create
	[281] = 2, // execveat
	[291] = 2, // statx
	[428] = 2, // open_tree
	[429] = 10, // move_mount
	[430] = 1, // fsopen
	[431] = 4, // fsconfig
	[433] = 2, // fspick
	[437] = 2, // openat2
	[439] = 2, // faccessat2
	[442] = 2, // mount_setattr
};

// The numbers of 32-bit Arm are not known here: addresses are shown.
static const __u8 compat_text[512] = {};

#endif

#endif
