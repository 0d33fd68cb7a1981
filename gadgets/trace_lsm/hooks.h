/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The security hooks that can be traced. A program that answers 0 leaves the answer to the kernel's own, whatever that is where
 * no security module has an opinion, so these change nothing. Left out are those where nothing is asked and modules only keep
 * their own data (alloc, free, labels), those of packets, which run in interrupts, and those that the kernel refuses to programs.
 */
#define LSM_HOOKS(X) \
	/* programs */                        \
	X(bprm_creds_for_exec)                \
	X(bprm_check_security)                \
	X(bprm_committing_creds)              \
	X(bprm_committed_creds)               \
	X(bprm_creds_from_file)               \
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
	X(file_send_sigiotask)                \
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
	X(inode_setxattr)                     \
	X(inode_getxattr)                     \
	X(inode_listxattr)                    \
	X(inode_removexattr)                  \
	X(inode_killpriv)                     \
	X(inode_copy_up)                      \
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
	X(path_notify)                        \
	/* mounts */                          \
	X(sb_mount)                           \
	X(sb_umount)                          \
	X(sb_remount)                         \
	X(sb_pivotroot)                       \
	X(sb_statfs)                          \
	X(move_mount)                         \
	X(fs_context_parse_param)             \
	X(sb_eat_lsm_opts)                    \
	X(sb_set_mnt_opts)                    \
	X(sb_kern_mount)                      \
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
	X(task_prctl)                         \
	X(cred_prepare)                       \
	X(kernel_act_as)                      \
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
	X(kernel_post_read_file)              \
	X(kernel_post_load_data)              \
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
	X(netlink_send)                       \
	/* keys and System V */               \
	X(key_permission)                     \
	X(ipc_permission)                     \
	X(msg_queue_msgsnd)                   \
	X(shm_shmat)                          \
	X(sem_semop)                          \
	X(msg_queue_associate)                \
	X(msg_queue_msgctl)                   \
	X(msg_queue_msgrcv)                   \
	X(shm_associate)                      \
	X(shm_shmctl)                         \
	X(sem_associate)                      \
	X(sem_semctl)                         \
	/* Binder */                          \
	X(binder_set_context_mgr)             \
	X(binder_transaction)                 \
	X(binder_transfer_binder)             \
	X(binder_transfer_file)
