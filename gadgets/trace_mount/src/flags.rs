//! Names of the flags that mounting calls take. Each call has flags of its own; the numbers are those of the kernel's
//! headers, the same on every architecture.

use gadget_sdk::text;

pub(crate) type Names = [(u64, &'static str)];

/// mount(2).
#[rustfmt::skip]
pub(crate) const MOUNT: &Names = &[
    (1, "MS_RDONLY"), (1 << 1, "MS_NOSUID"), (1 << 2, "MS_NODEV"), (1 << 3, "MS_NOEXEC"), (1 << 4, "MS_SYNCHRONOUS"),
    (1 << 5, "MS_REMOUNT"), (1 << 6, "MS_MANDLOCK"), (1 << 7, "MS_DIRSYNC"), (1 << 8, "MS_NOSYMFOLLOW"),
    (1 << 10, "MS_NOATIME"), (1 << 11, "MS_NODIRATIME"), (1 << 12, "MS_BIND"), (1 << 13, "MS_MOVE"), (1 << 14, "MS_REC"),
    (1 << 15, "MS_SILENT"), (1 << 16, "MS_POSIXACL"), (1 << 17, "MS_UNBINDABLE"), (1 << 18, "MS_PRIVATE"),
    (1 << 19, "MS_SLAVE"), (1 << 20, "MS_SHARED"), (1 << 21, "MS_RELATIME"), (1 << 22, "MS_KERNMOUNT"),
    (1 << 23, "MS_I_VERSION"), (1 << 24, "MS_STRICTATIME"), (1 << 25, "MS_LAZYTIME"),
];
/// The upper half of the flags of mount(2), when it is this number: programs of long ago set it, and the kernel ignores it.
const MAGIC: u64 = 0xc0ed;

/// The flags of mount(2) as the kernel takes them.
pub(crate) fn without_magic(flags: u64) -> u64 {
    if flags >> 16 == MAGIC { flags & 0xffff } else { flags }
}

/// umount2(2).
pub(crate) const UMOUNT: &Names = &[(1, "MNT_FORCE"), (2, "MNT_DETACH"), (4, "MNT_EXPIRE"), (8, "UMOUNT_NOFOLLOW")];
pub(crate) const FSOPEN: &Names = &[(1, "FSOPEN_CLOEXEC")];
pub(crate) const FSPICK: &Names =
    &[(1, "FSPICK_CLOEXEC"), (2, "FSPICK_SYMLINK_NOFOLLOW"), (4, "FSPICK_NO_AUTOMOUNT"), (8, "FSPICK_EMPTY_PATH")];
pub(crate) const FSMOUNT: &Names = &[(1, "FSMOUNT_CLOEXEC"), (2, "FSMOUNT_NAMESPACE")];
#[rustfmt::skip]
pub(crate) const MOVE_MOUNT: &Names = &[
    (0x1, "MOVE_MOUNT_F_SYMLINKS"), (0x2, "MOVE_MOUNT_F_AUTOMOUNTS"), (0x4, "MOVE_MOUNT_F_EMPTY_PATH"),
    (0x10, "MOVE_MOUNT_T_SYMLINKS"), (0x20, "MOVE_MOUNT_T_AUTOMOUNTS"), (0x40, "MOVE_MOUNT_T_EMPTY_PATH"),
    (0x100, "MOVE_MOUNT_SET_GROUP"), (0x200, "MOVE_MOUNT_BENEATH"),
];
/// open_tree(2) and mount_setattr(2) share those of the `…at` calls; O_CLOEXEC is the same number on x86_64 and arm64.
#[rustfmt::skip]
pub(crate) const AT: &Names = &[
    (0x1, "OPEN_TREE_CLONE"), (0x2, "OPEN_TREE_NAMESPACE"), (0o2000000, "OPEN_TREE_CLOEXEC"), (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"), (0x1000, "AT_EMPTY_PATH"), (0x8000, "AT_RECURSIVE"),
];
/// Attributes of fsmount(2) and mount_setattr(2).
#[rustfmt::skip]
pub(crate) const ATTR: &Names = &[
    (0x1, "MOUNT_ATTR_RDONLY"), (0x2, "MOUNT_ATTR_NOSUID"), (0x4, "MOUNT_ATTR_NODEV"), (0x8, "MOUNT_ATTR_NOEXEC"),
    (0x10, "MOUNT_ATTR_NOATIME"), (0x20, "MOUNT_ATTR_STRICTATIME"), (0x80, "MOUNT_ATTR_NODIRATIME"),
    (0x10_0000, "MOUNT_ATTR_IDMAP"), (0x20_0000, "MOUNT_ATTR_NOSYMFOLLOW"),
];

/// `A|B`, bits without a name behind them in hexadecimal; nothing for 0.
pub(crate) fn write(flags: u64, names: &Names, out: &mut Vec<u8>) {
    let mut left = flags;
    let start = out.len();
    let next = |name: &[u8], out: &mut Vec<u8>| {
        if out.len() > start {
            out.push(b'|');
        }
        out.extend_from_slice(name);
    };
    for (bit, name) in names {
        if left & bit != 0 {
            left &= !bit;
            next(name.as_bytes(), out);
        }
    }
    if left != 0 {
        next(b"0x", out);
        hexadecimal(left, out);
    }
}

/// As [`write`], with `0` for none: how it stands in a call.
pub(crate) fn write_argument(flags: u64, names: &Names, out: &mut Vec<u8>) {
    if flags == 0 {
        text::decimal(0, out);
    } else {
        write(flags, names, out);
    }
}

fn hexadecimal(number: u64, out: &mut Vec<u8>) {
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|d| b"0123456789abcdef"[(number >> (4 * d)) as usize & 15]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(flags: u64, names: &Names) -> String {
        let mut out = Vec::new();
        write(flags, names, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn flags_are_named_and_what_has_no_name_is_not_lost() {
        assert_eq!(shown(0, MOUNT), "");
        assert_eq!(shown(0x1005, MOUNT), "MS_RDONLY|MS_NODEV|MS_BIND");
        assert_eq!(shown(0x8000_0000_0000_0002, UMOUNT), "MNT_DETACH|0x8000000000000000");
        assert_eq!(shown(0x44, MOVE_MOUNT), "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH");
        assert_eq!(shown(0x10, UMOUNT), "0x10");
    }

    #[test]
    fn the_magic_number_of_old_programs_is_no_flag() {
        assert_eq!(without_magic(0xc0ed_0001), 1);
        assert_eq!(without_magic(0xc0ef_0001), 0xc0ef_0001);
    }
}
