//! Images from a folder to a store and back, with everything that can happen to them on the way.
//!
//! Needs clang-19, llvm-19 and libbpf-dev; no root except in the `root_` tests, which mount a tmpfs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use ig_runtime::image::{
    Arch, Bundle, Digest, GadgetImage, ImageContent, ImageError, ImageName, Lookup, NameRules, Origin, PullPolicy,
    Resolver, Source, Store, TarLayout, write_layout, write_tar,
};
use proptest::prelude::*;
use support::{METADATA, PROGRAM, files, gadget_dir, reference, tiny, try_build};
use tempfile::tempdir;

fn rules() -> NameRules {
    NameRules::default()
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text, &rules()).unwrap()
}

fn resolver<'a>(store: &'a Store, bundle: Option<&'a Bundle>, rules: &'a NameRules) -> Resolver<'a, 'a> {
    Resolver { store, bundle, rules, registry: None, builder: None, arch: Arch::host() }
}

fn resolve(store: &Store, text: &str) -> Result<GadgetImage, ImageError> {
    let rules = rules();
    resolver(store, None, &rules).resolve(text, PullPolicy::Missing, &mut |_| ())
}

#[test]
fn the_same_folder_gives_the_same_digest_wherever_it_is() {
    let (first, second) = (gadget_dir(METADATA), gadget_dir(METADATA));
    let one = try_build(first.path(), &Arch::ALL).unwrap();
    let two = try_build(second.path(), &Arch::ALL).unwrap();
    assert_eq!(one.image.digest(), two.image.digest());
    assert_eq!(one.warnings, "");
    for bytes in one.image.blobs.values() {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains(first.path().to_str().unwrap()), "an object names the folder it was built in");
        assert!(!text.contains("ig-build-"), "an object names the temporary directory");
    }
    fs::write(first.path().join("program.bpf.c"), PROGRAM.replace("4096", "8192")).unwrap();
    assert_ne!(try_build(first.path(), &Arch::ALL).unwrap().image.digest(), one.image.digest());
    assert_eq!(files(first.path()), ["gadget.yaml", "program.bpf.c"], "the folder was written to");
}

#[test]
fn an_image_holds_what_was_built() {
    let dir = gadget_dir(METADATA);
    fs::write(dir.path().join("program.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
    let built = try_build(dir.path(), &Arch::ALL).unwrap();
    for arch in Arch::ALL {
        let image = GadgetImage::load(&built.image, &built.image.root, "tiny", arch).unwrap();
        assert_eq!(image.metadata, METADATA.as_bytes());
        assert!(image.ebpf.unwrap().starts_with(b"\x7fELF"));
        assert_eq!(image.wasm.unwrap(), b"\0asm\x0d\0\x01\0");
        assert_eq!(image.wasm_digest.unwrap(), Digest::of(b"\0asm\x0d\0\x01\0").to_string());
        assert_eq!(image.annotations["org.opencontainers.image.title"], "tiny gadget");
        assert_eq!(image.annotations["io.inspektor-gadget.builder.version"], "ig test");
        assert_eq!(image.created, None);
    }
    assert_eq!(built.metadata.name, "tiny gadget");
}

#[test]
fn build_mistakes_are_named() {
    let message = |change: &dyn Fn(&Path)| {
        let dir = gadget_dir(METADATA);
        change(dir.path());
        let error = try_build(dir.path(), &[Arch::host()]).unwrap_err();
        format!("{error} | {}", error.hint().unwrap_or_default()).replace(dir.path().to_str().unwrap(), "DIR")
    };
    let write = |file: &'static str, text: String| move |dir: &Path| fs::write(dir.join(file), &text).unwrap();

    let broken = message(&write("program.bpf.c", PROGRAM.replace("return 0;\n}", "return missing;\n}")));
    assert!(broken.contains("program.bpf.c:27:9: error: use of undeclared identifier 'missing'"), "{broken}");
    let unknown = message(&write("gadget.yaml", METADATA.replace("params:", "parms:")));
    assert!(unknown.contains("gadget.yaml: line 10, column 1: unknown key parms; did you mean params?"), "{unknown}");
    let param = message(&write("gadget.yaml", METADATA.replace("    verbose:", "    verbos:")));
    assert!(param.contains("parameter verbos does not exist (did you mean verbose?)"), "{param}");
    let source = message(&write("gadget.yaml", METADATA.replace("  tiny:", "  tinny:")));
    assert!(source.contains("data source tinny does not exist (did you mean tiny?)"), "{source}");
    let program = message(&write("gadget.yaml", format!("{METADATA}alternatives: {{job: [[tiny_entr]]}}\n")));
    assert!(program.contains("program tiny_entr does not exist (did you mean tiny_enter?)"), "{program}");
    let no_program = message(&write("program.bpf.c", "int x;\n".to_owned()));
    assert!(no_program.contains("DIR/program.bpf.c compiles to an object without a BPF program"), "{no_program}");
    let no_wasm = message(&write("program.wasm", "text".to_owned()));
    assert!(no_wasm.contains("DIR/program.wasm is no WebAssembly"), "{no_wasm}");
    let part = message(&write("build.yaml", "ebpfsource: other.c\n".to_owned()));
    assert!(part.contains("DIR/build.yaml names other.c as ebpfsource, which does not exist"), "{part}");
    let key = message(&write("build.yaml", "ebpfsorce: program.bpf.c\n".to_owned()));
    assert!(key.contains("DIR/build.yaml: line 1, column 1"), "{key}");
    let language = message(&|dir| {
        fs::write(dir.join("build.yaml"), "wasm: program.go\n").unwrap();
        fs::write(dir.join("program.go"), "package main\n").unwrap();
    });
    assert!(language.contains("DIR/program.go cannot be compiled: only Rust"), "{language}");
    let nothing = message(&|dir| fs::remove_file(dir.join("program.bpf.c")).unwrap());
    assert!(nothing.contains("DIR holds neither program.bpf.c nor Cargo.toml nor program.wasm"), "{nothing}");
    let no_metadata = message(&|dir| fs::remove_file(dir.join("gadget.yaml")).unwrap());
    assert!(no_metadata.contains("DIR is no gadget: it has no gadget.yaml"), "{no_metadata}");
    let wasm = message(&write("Cargo.toml", String::new()));
    assert!(wasm.contains("building the Wasm half in DIR: no Wasm compiler in this test, asked for DIR"), "{wasm}");
}

#[test]
fn a_missing_compiler_is_named() {
    let dir = gadget_dir(METADATA);
    let toolchain = ig_runtime::image::Toolchain {
        clang: Some("/nowhere/clang".into()),
        ..ig_runtime::image::Toolchain::default()
    };
    let request = ig_runtime::image::BuildRequest {
        dir: dir.path(),
        archs: &[Arch::host()],
        toolchain: &toolchain,
        wasm: &|_| Err("unused".into()),
        builder_version: "ig test",
        source_date_epoch: None,
    };
    let error = ig_runtime::image::build(&request).unwrap_err();
    assert!(error.to_string().contains("cannot run /nowhere/clang: No such file"), "{error}");
}

#[test]
fn a_store_lists_tags_and_removes() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    assert_eq!(store.list().unwrap(), []);
    assert!(!store.dir().exists(), "a look created the store");
    let image = tiny();
    store.add(Some(&reference("tiny")), &image).unwrap();
    store.tag(&name("tiny"), "tiny", &reference("other.example/a/b:v1"), &rules()).unwrap();
    let listed: Vec<String> = store.list().unwrap().iter().map(|i| i.reference.clone().unwrap().to_string()).collect();
    assert_eq!(listed, ["ghcr.io/inspektor-gadget/gadget/tiny:latest", "other.example/a/b:v1"]);

    let removed = store.remove(&name("tiny"), "tiny", &rules()).unwrap();
    assert_eq!((removed.names.len(), removed.blobs), (1, 0), "blobs of a shared image went");
    assert!(resolve(&store, "tiny").is_err());
    resolve(&store, "other.example/a/b:v1").unwrap();
    resolve(&store, &image.digest().to_string()).unwrap();
    resolve(&store, &image.digest().short()).unwrap();

    let removed = store.remove(&name(&image.digest().to_string()), "digest", &rules()).unwrap();
    assert_eq!(removed.blobs, image.blobs.len());
    assert_eq!(files(store.dir()), ["index.json", "index.lock", "oci-layout"]);
}

#[test]
fn a_rebuilt_image_replaces_the_old_one() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path());
    let old = tiny();
    let changed = gadget_dir(&METADATA.replace("one event", "an event"));
    let new = try_build(changed.path(), &[Arch::host()]).unwrap().image;
    store.add(Some(&reference("tiny")), &old).unwrap();
    store.add(Some(&reference("tiny")), &new).unwrap();
    assert_eq!(resolve(&store, "tiny").unwrap().digest, new.digest().to_string());
    let blobs = files(&store.dir().join("blobs/sha256"));
    assert_eq!(blobs.len(), new.blobs.len(), "the old image's blobs are still there");
}

#[test]
fn unknown_names_are_answered_with_near_ones() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path());
    store.add(Some(&reference("trace_exec")), &tiny()).unwrap();
    let error = store.remove(&name("trace_exce"), "trace_exce", &rules()).unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean trace_exec?");
    let error = resolve(&store, "trace_exce").unwrap_err();
    let ImageError::Unknown { looked, near, .. } = &error else { panic!("{error}") };
    assert!(matches!(looked[..], [Lookup::Store(_), Lookup::NoCatalogue, Lookup::PullingDisallowed]));
    assert_eq!(near, &["trace_exec"]);
    assert!(error.to_string().contains("not in the store"), "{error}");
}

#[test]
fn export_and_import_keep_the_image_byte_for_byte() {
    let dir = tempdir().unwrap();
    let (first, second) = (Store::at(dir.path().join("1")), Store::at(dir.path().join("2")));
    let image = tiny();
    first.add(Some(&reference("tiny")), &image).unwrap();
    let rules = rules();
    let content =
        resolver(&first, None, &rules).locate("tiny", PullPolicy::Never, &mut |_| ()).unwrap().content().unwrap();
    let tagged = reference("tiny").tagged();
    let (tar, again) = (dir.path().join("a.tar"), dir.path().join("b.tar"));
    write_tar(&[(tagged.clone(), content.clone())], &tar).unwrap();
    write_tar(&[(tagged, content)], &again).unwrap();
    assert_eq!(fs::read(&tar).unwrap(), fs::read(&again).unwrap());

    assert_eq!(second.import(&tar, &rules).unwrap(), ["ghcr.io/inspektor-gadget/gadget/tiny:latest"]);
    assert_eq!(resolve(&second, "tiny").unwrap().digest, image.digest().to_string());
    let direct = resolve(&second, tar.to_str().unwrap()).unwrap();
    assert_eq!((direct.digest, direct.origin), (image.digest().to_string(), Origin::Tar));
    let layout = resolve(&second, first.dir().to_str().unwrap()).unwrap();
    assert_eq!((layout.digest, layout.origin), (image.digest().to_string(), Origin::Directory));
}

#[test]
fn other_tools_read_what_we_write() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    let image = tiny();
    store.add(Some(&reference("tiny")), &image).unwrap();
    let tar = dir.path().join("a.tar");
    write_tar(&[(reference("tiny").tagged(), image.clone())], &tar).unwrap();
    let from = format!("oci-archive:{}:ghcr.io/inspektor-gadget/gadget/tiny:latest", tar.display());
    let to = format!("oci:{}:copied", dir.path().join("copy").display());
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--all", "--preserve-digests", &from, &to])
        .output()
        .expect("skopeo is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let copied = resolve(&store, dir.path().join("copy").to_str().unwrap()).unwrap();
    assert_eq!(copied.digest, image.digest().to_string());
}

/// The largest blob: the BPF object.
fn object_file(store: &Store, image: &ImageContent) -> std::path::PathBuf {
    let (digest, _) = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    store.dir().join("blobs/sha256").join(digest.hex())
}

#[test]
fn damaged_blobs_are_refused_and_repaired_by_getting_them_again() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path());
    let image = tiny();
    store.add(Some(&reference("tiny")), &image).unwrap();
    let object = object_file(&store, &image);
    let good = fs::read(&object).unwrap();
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    let longer = [good.as_slice(), b"x"].concat();
    for bad in [flipped, good[..50].to_vec(), longer, Vec::new()] {
        fs::write(&object, &bad).unwrap();
        let error = resolve(&store, "tiny").unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains("image tiny: blob sha256:"), "as it was called: {shown}");
        assert!(error.hint().unwrap().contains("ig image pull"), "{shown}");
        store.add(Some(&reference("tiny")), &image).unwrap();
        resolve(&store, "tiny").unwrap();
    }
    fs::remove_file(&object).unwrap();
    assert!(matches!(resolve(&store, "tiny").unwrap_err(), ImageError::MissingBlob { .. }));
    let index = store.dir().join("index.json");
    fs::write(&index, "{").unwrap();
    let error = resolve(&store, "tiny").unwrap_err();
    assert!(matches!(error, ImageError::Document { what: "index.json", .. }), "{error}");
}

#[test]
fn damaged_tars_change_nothing() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    let image = tiny();
    let tar = dir.path().join("a.tar");
    write_tar(&[(reference("tiny").tagged(), image.clone())], &tar).unwrap();
    let good = fs::read(&tar).unwrap();
    let object = image.blobs.values().max_by_key(|bytes| bytes.len()).unwrap();
    let at = good.windows(object.len()).position(|window| window == object.as_slice()).unwrap();
    let mut flipped = good.clone();
    flipped[at + 64] ^= 0xff;
    for bad in [&flipped[..], &good[..good.len() / 2], &good[..700], b"", b"not a tar at all"] {
        fs::write(&tar, bad).unwrap();
        let error = store.import(&tar, &rules()).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert!(!store.dir().exists(), "a failed import wrote to the store: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_changed_byte_in_a_tar_never_brings_another_image(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        static TAR: OnceLock<(Vec<u8>, Digest)> = OnceLock::new();
        let (good, digest) = TAR.get_or_init(|| {
            let image = tiny();
            let mut bytes = Vec::new();
            let digest = image.digest();
            write_layout(&[(reference("tiny").tagged(), image)], &mut bytes).unwrap();
            (bytes, digest)
        });
        let dir = tempdir().unwrap();
        let (tar, store) = (dir.path().join("a.tar"), Store::at(dir.path().join("store")));
        let mut bad = good.clone();
        bad[at.index(good.len())] ^= flip;
        fs::write(&tar, &bad).unwrap();
        match store.import(&tar, &rules()) {
            // What no digest covers is the tar's own framing and the name in index.json.
            Ok(_) => prop_assert_eq!(store.list().unwrap()[0].digest, *digest),
            Err(_) => prop_assert!(!store.dir().exists()),
        }
    }
}

#[test]
fn a_gadget_is_called_what_the_user_called_it() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    store.add(Some(&reference("tiny")), &tiny()).unwrap();
    let full = "ghcr.io/inspektor-gadget/gadget/tiny:latest";
    for text in ["tiny", "tiny:latest", full] {
        let image = resolve(&store, text).unwrap();
        assert_eq!((image.called.as_str(), image.reference.as_str()), (text, full));
    }
    let digest = tiny().digest().to_string();
    let image = resolve(&store, &digest).unwrap();
    assert_eq!((image.called.as_str(), image.reference.as_str()), (digest.as_str(), full));
}

#[test]
fn a_store_without_a_place_is_empty_and_takes_nothing() {
    let store = Store::nowhere("HOME is not set");
    assert_eq!(store.list().unwrap(), []);
    let error = resolve(&store, "tiny").unwrap_err();
    assert_eq!(error.to_string(), "no gadget tiny: this program has no built-in gadgets; pulling is disallowed");
    let error = store.add(Some(&reference("tiny")), &tiny()).unwrap_err();
    assert_eq!(error.to_string(), "there is no place for images: HOME is not set");
    assert_eq!(error.hint().unwrap(), "name one with --store DIR");
}

#[test]
fn a_name_that_is_nearly_right_is_told_also_behind_a_path() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    store.add(Some(&reference("trace_tiny")), &tiny()).unwrap();
    let hint = |text: &str| resolve(&store, text).unwrap_err().hint().unwrap();
    for near in ["trace_tyni", "trace-tiny", "tiny:latest", "gadget/trace_tiny", "inspektor-gadget/trace_tny:v1"] {
        assert_eq!(hint(near), "did you mean trace_tiny?", "{near}");
    }
    for other in ["exec", "registry.example/trace_tiny", "localhost:5000/trace_tiny"] {
        assert!(!hint(other).contains("trace_tiny"), "{other}: {}", hint(other));
    }
}

#[test]
fn what_is_no_gadget_says_so() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    let image = tiny();
    let manifest = image
        .blobs
        .values()
        .find(|b| b.starts_with(br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest"#))
        .unwrap();
    let other = String::from_utf8(manifest.clone())
        .unwrap()
        .replace("vnd.gadget.config.v1+yaml", "vnd.oci.image.config.v1+json")
        .replace("vnd.gadget.v1+binary", "vnd.other");
    let mut root = image.root.clone();
    root.media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    root.digest = Digest::of(other.as_bytes());
    root.size = other.len() as u64;
    let mut blobs = image.blobs.clone();
    blobs.insert(root.digest, other.into_bytes());
    store.add(Some(&reference("other")), &ImageContent::new(root, blobs, Origin::Tar)).unwrap();
    let error = resolve(&store, "other").unwrap_err();
    assert!(matches!(error, ImageError::NotAGadget { .. }), "{error}");

    let wrong = if Arch::host() == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 };
    let error = GadgetImage::load(&image, &image.root, "tiny", wrong).unwrap_err();
    assert!(error.to_string().contains(&format!("not built for {wrong}, only for {}", Arch::host())), "{error}");
    fs::create_dir(dir.path().join("empty")).unwrap();
    let error = resolve(&store, dir.path().join("empty").to_str().unwrap()).unwrap_err();
    assert!(matches!(error, ImageError::NoGadgetDirectory { .. }), "{error}");
}

#[test]
fn the_catalogue_answers_bare_names_after_the_store() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    let (tar, program) = (dir.path().join("bundle.tar"), dir.path().join("program"));
    let image = tiny();
    write_tar(&[(reference("tiny").tagged(), image.clone())], &tar).unwrap();
    fs::copy("/bin/true", &program).unwrap();
    assert!(Bundle::from_executable(&program).unwrap().is_none());
    let section = format!("{}={}", ig_runtime::image::BUNDLE_SECTION, tar.display());
    let output = Command::new("objcopy")
        .args(["--add-section", &section])
        .arg(&program)
        .output()
        .expect("binutils is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let bundle = Bundle::from_executable(&program).unwrap().expect("the section is found");
    let rules = rules();
    let resolver = resolver(&store, Some(&bundle), &rules);
    let get = |text: &str| resolver.resolve(text, PullPolicy::Missing, &mut |_| ());
    let found = get("tiny").unwrap();
    assert_eq!((found.origin, found.digest), (Origin::Bundle, image.digest().to_string()));
    get(&image.digest().to_string()).unwrap();
    for other in ["ghcr.io/inspektor-gadget/gadget/tiny", "tiny:v2", "me/tiny"] {
        let error = get(other).unwrap_err();
        assert!(matches!(error, ImageError::Unknown { .. }), "{other}: {error}");
    }
    let changed = gadget_dir(&METADATA.replace("one event", "an event"));
    let local = try_build(changed.path(), &[Arch::host()]).unwrap().image;
    store.add(Some(&reference("tiny")), &local).unwrap();
    assert_eq!(get("tiny").unwrap().origin, Origin::Store);
}

#[test]
fn folders_are_built_in_place() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    let gadget = gadget_dir(METADATA);
    let rules = rules();
    let resolver = Resolver { builder: Some(&try_build), ..resolver(&store, None, &rules) };
    let image = resolver.resolve(gadget.path().to_str().unwrap(), PullPolicy::Never, &mut |_| ()).unwrap();
    assert_eq!((image.digest, image.origin), (tiny().digest().to_string(), Origin::Directory));
    assert!(!store.dir().exists());
}

#[test]
fn writers_do_not_lose_each_others_images() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path());
    let image = tiny();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (store, image) = (&store, &image);
            scope.spawn(move || {
                for turn in 0..4 {
                    store.add(Some(&reference(&format!("tiny:w{writer}-{turn}"))), image).unwrap();
                    assert!(store.index().unwrap().manifests.len() > turn);
                }
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 32);
}

#[test]
fn what_a_killed_writer_left_is_removed_by_the_next() {
    let dir = tempdir().unwrap();
    let store = Store::at(dir.path());
    store.add(Some(&reference("tiny")), &tiny()).unwrap();
    fs::write(store.dir().join("blobs/sha256/.ig-tmp-abc"), "half").unwrap();
    fs::write(store.dir().join(".ig-tmp-def"), "half").unwrap();
    store.tag(&name("tiny"), "tiny", &reference("tiny:v2"), &rules()).unwrap();
    assert!(!files(store.dir()).iter().any(|file| file.contains("tmp")));
    let stored = TarLayout::open(&store.dir().join("index.json"));
    assert!(stored.is_err(), "a JSON file was taken for a tar");
}

/// A tmpfs of `kilobytes` on `dir`, unmounted at the end.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(dir: &'a Path, kilobytes: u32) -> Self {
        let options = format!("size={kilobytes}k");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).status().unwrap();
        assert!(status.success(), "mounting a tmpfs needs root");
        Self(dir)
    }

    fn read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(self.0).status().unwrap().success());
    }
}

#[test]
fn root_a_full_disk_changes_nothing() {
    let dir = tempdir().unwrap();
    let mount = Mount::new(dir.path(), 64);
    let store = Store::at(dir.path().join("store"));
    store.add(Some(&reference("tiny")), &tiny()).unwrap();
    let before = files(store.dir());
    let gadget = gadget_dir(METADATA);
    fs::write(gadget.path().join("program.wasm"), [b"\0asm".as_slice(), &[7; 128 << 10]].concat()).unwrap();
    let large = try_build(gadget.path(), &[Arch::host()]).unwrap().image;
    let error = store.add(Some(&reference("large")), &large).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(error.hint().unwrap().contains("nothing was changed"));
    assert_eq!(files(store.dir()), before);
    resolve(&store, "tiny").unwrap();
    drop(mount);
}

#[test]
fn root_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written() {
    let dir = tempdir().unwrap();
    let mount = Mount::new(dir.path(), 256);
    let store = Store::at(dir.path().join("store"));
    store.add(Some(&reference("tiny")), &tiny()).unwrap();
    mount.read_only();
    resolve(&store, "tiny").unwrap();
    let error = store.remove(&name("tiny"), "tiny", &rules()).unwrap_err();
    assert!(error.to_string().contains("Read-only file system"), "{error}");
    assert!(error.hint().unwrap().contains("--store"));
    drop(mount);
}
