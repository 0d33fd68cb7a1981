//! How the binaries are linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A position-independent program holds a table of every pointer in its data; packed it takes 40 kB instead of 2 MB. The
    // static glibc reads it since 2.36.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // The release build ends where it panics, and has no symbols to name in a backtrace: its index would be for nothing.
    if std::env::var("PROFILE").is_ok_and(|p| p == "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}
