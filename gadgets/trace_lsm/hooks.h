/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The security hooks that can be traced: those whose answer is 0 where no security module has an opinion, so that a program
 * which always answers 0 changes nothing, and that run in the process that asks. Left out are hooks with another default (prctl,
 * extended attributes), those of interrupts and of the end of objects (packets, task_free), and those that the kernel refuses.
 */
#define LSM_HOOKS(X) \
	/* programs */                        \
	X(bprm_creds_for_exec)                \
	X(bprm_check_security)                \
	X(bprm_committing_creds)              \
	X(bprm_committed_creds)               \
	/* files */                           \
	X(file_open)                          \
	X(file_permission)                    \
	X(file_ioctl)                         \
	X(file_lock)                          \
	X(file_fcntl)                         \
	X(file_receive)                       \
	X(file_set_fowner)                    \
	X(mmap_file)                          \
	X(mmap_addr)                          \
	X(file_mprotect)                      \
	/* inodes */                          \
	X(inode_create)                       \
	X(inode_link)                         \
	X(inode_unlink)                       \
	X(inode_symlink)                      \
	X(inode_mkdir)                        \
	X(inode_rmdir)                        \
	X(inode_mknod)                        \
	X(inode_rename)                       \
	X(inode_readlink)                     \
	X(inode_follow_link)                  \
	X(inode_permission)                   \
	X(inode_setattr)                      \
	X(inode_getattr)                      \
	/* paths */                           \
	X(path_unlink)                        \
	X(path_mkdir)                         \
	X(path_rmdir)                         \
	X(path_mknod)                         \
	X(path_truncate)                      \
	X(path_symlink)                       \
	X(path_link)                          \
	X(path_rename)                        \
	X(path_chmod)                         \
	X(path_chown)                         \
	X(path_chroot)                        \
	/* mounts */                          \
	X(sb_mount)                           \
	X(sb_umount)                          \
	X(sb_remount)                         \
	X(sb_pivotroot)                       \
	X(sb_statfs)                          \
	X(move_mount)                         \
	/* tasks */                           \
	X(task_alloc)                         \
	X(task_kill)                          \
	X(task_setpgid)                       \
	X(task_getpgid)                       \
	X(task_getsid)                        \
	X(task_setnice)                       \
	X(task_setioprio)                     \
	X(task_getioprio)                     \
	X(task_prlimit)                       \
	X(task_setrlimit)                     \
	X(task_setscheduler)                  \
	X(task_getscheduler)                  \
	X(task_movememory)                    \
	X(task_fix_setuid)                    \
	X(task_fix_setgid)                    \
	X(ptrace_access_check)                \
	X(ptrace_traceme)                     \
	X(userns_create)                      \
	/* capabilities and the machine */    \
	X(capget)                             \
	X(capset)                             \
	X(capable)                            \
	X(settime)                            \
	X(syslog)                             \
	X(quotactl)                           \
	X(quota_on)                           \
	X(locked_down)                        \
	/* modules and data for the kernel */ \
	X(kernel_module_request)              \
	X(kernel_read_file)                   \
	X(kernel_load_data)                   \
	/* BPF, perf, io_uring */             \
	X(bpf)                                \
	X(bpf_map)                            \
	X(bpf_prog)                           \
	X(perf_event_open)                    \
	X(uring_override_creds)               \
	X(uring_sqpoll)                       \
	X(uring_cmd)                          \
	/* sockets */                         \
	X(unix_stream_connect)                \
	X(unix_may_send)                      \
	X(socket_create)                      \
	X(socket_post_create)                 \
	X(socket_socketpair)                  \
	X(socket_bind)                        \
	X(socket_connect)                     \
	X(socket_listen)                      \
	X(socket_accept)                      \
	X(socket_sendmsg)                     \
	X(socket_recvmsg)                     \
	X(socket_getsockname)                 \
	X(socket_getpeername)                 \
	X(socket_getsockopt)                  \
	X(socket_setsockopt)                  \
	X(socket_shutdown)                    \
	/* keys and System V */               \
	X(key_permission)                     \
	X(ipc_permission)                     \
	X(msg_queue_msgsnd)                   \
	X(shm_shmat)                          \
	X(sem_semop)
