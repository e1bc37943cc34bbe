//! `src/store/FORMAT.md` is enough to write another reader: one in Python, made from that text alone, restores what Kiln saved.
#![expect(clippy::unwrap_used, reason = "what the test is made of fails as the test does")]

use std::path::Path;
use std::process::Command;

/// A tree with everything that an entry can say, and enough of it that lists of chunks and several manifest chunks are needed.
const TREE: &str = r#"
set -e
mkdir -p tree/many tree/dir/empty
for n in $(seq 1 2500); do echo "$n" > "tree/many/some-file-$n"; done
head -c 9000000 /dev/urandom > tree/large
yes 'text that compresses' | head -c 700000 > tree/dir/text
yes 'one chunk' | head -c 100000 > tree/dir/small
: > tree/dir/nothing
truncate -s 40M tree/sparse
dd if=tree/large of=tree/sparse bs=100000 count=3 seek=50 conv=notrunc status=none
dd if=tree/large of=tree/sparse bs=100000 count=2 seek=200 conv=notrunc status=none
ln tree/dir/text tree/again
ln -s ../nowhere tree/dir/link
mkfifo tree/fifo
printf x > "tree/$(printf 'not-utf8-\377')"
printf y > 'tree/dir-with-a-minus'
chmod 4750 tree/dir/small
chmod 1700 tree/dir/empty
python3 -c 'import os; os.setxattr("tree/dir/small", "user.note", b"\0\1")' 2>/dev/null || true
touch -h -d 1969-12-31T23:59:58.123456789Z tree/dir/nothing tree/dir/link
touch -d 2031-01-02T03:04:05.000000001Z tree/dir
"#;

/// Everything that `find` sees of a tree, and every content.
const SEEN: &str = r#"
cd "$1"
find . -printf '%P|%y|%m|%U|%G|%T@|%l\n' | LC_ALL=C sort
find . -type f -printf '%P|%n|%s\n' | LC_ALL=C sort
find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
python3 -c 'import os; print(os.getxattr("dir/small", "user.note"))' 2>/dev/null || true
"#;

fn shell(home: &Path, words: &[&str]) -> String {
    let output = Command::new("bash")
        .arg("-c")
        .args(words)
        .current_dir(home)
        .env("HOME", home)
        .env("KILN_STORE", home.join("store"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_reader_made_from_the_format_alone_restores_what_was_saved() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let save = format!("'{}' --quiet workspace save tree --name w", env!("CARGO_BIN_EXE_kiln"));
    let reader = format!("{}/tests/fixtures/reader.py", env!("CARGO_MANIFEST_DIR"));
    shell(home, &[TREE]);
    shell(home, &[&save]);
    // The second revision lies in packs of two saves.
    shell(home, &["echo more > tree/many/new; echo other > tree/many/some-file-7"]);
    shell(home, &[&save]);
    shell(home, &[&format!("python3 '{reader}' store w back")]);
    let expected = shell(home, &[SEEN, "seen", "tree"]);
    assert!(expected.lines().count() > 5_000);
    let found = shell(home, &[SEEN, "seen", "back"]);
    let differing: Vec<_> =
        expected.lines().zip(found.lines()).filter(|(expected, found)| expected != found).take(5).collect();
    assert!(expected == found, "{differing:?}");
}
