//! Images of both layouts, made for what they show.

use std::io::Write as _;

use super::examine::{ImageContents, contents};
use super::export::read;

/// A layer: paths, and what is there. `None` is a directory.
fn layer(entries: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        // A name as it is, also one that the builder would refuse.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_mode(0o644);
        header.set_size(content.map_or(0, |content| content.len() as u64));
        header.set_entry_type(if content.is_some() {
            tar::EntryType::Regular
        } else {
            tar::EntryType::Directory
        });
        header.set_cksum();
        archive.append(&header, content.unwrap_or_default()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn config(layers: usize, instructions: &[&str]) -> Vec<u8> {
    let ids: Vec<String> = (0..layers).map(|number| format!("sha256:{number}")).collect();
    let mut history: Vec<serde_json::Value> =
        instructions.iter().map(|text| serde_json::json!({ "created_by": text })).collect();
    history.push(serde_json::json!({ "created_by": "CMD [\"sh\"]", "empty_layer": true }));
    serde_json::json!({ "history": history, "rootfs": { "type": "layers", "diff_ids": ids } })
        .to_string()
        .into_bytes()
}

#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// As engines before 25 write it, the manifest last.
    Old,
    /// As later ones do.
    Oci,
    OciGzip,
    OciZstd,
}

const LAYOUTS: [Layout; 4] = [Layout::Old, Layout::Oci, Layout::OciGzip, Layout::OciZstd];

fn image(layout: Layout, layers: &[Vec<u8>], instructions: &[&str]) -> Vec<u8> {
    let name = |number: usize| match layout {
        Layout::Old => format!("{number}/layer.tar"),
        Layout::Oci | Layout::OciGzip | Layout::OciZstd => format!("blobs/sha256/{number}"),
    };
    let config_name = if layout == Layout::Old { "c.json" } else { "blobs/sha256/c" };
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    // Never in their own order.
    for (number, layer) in layers.iter().enumerate().rev() {
        let bytes = match layout {
            Layout::Old | Layout::Oci => layer.clone(),
            Layout::OciGzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(layer).unwrap();
                encoder.finish().unwrap()
            }
            Layout::OciZstd => zstd::encode_all(&layer[..], 1).unwrap(),
        };
        members.push((name(number), bytes));
        if layout == Layout::Old {
            members.push((format!("{number}/VERSION"), b"1.0".to_vec()));
            members.push((format!("{number}/json"), b"{\"id\":\"x\"}".to_vec()));
        }
    }
    members.push((config_name.to_owned(), config(layers.len(), instructions)));
    let names: Vec<String> = (0..layers.len()).map(name).collect();
    let manifest = serde_json::json!([{ "Config": config_name, "RepoTags": ["a:b"], "Layers": names }]);
    members.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    members.push(("repositories".to_owned(), b"{}".to_vec()));
    let entries: Vec<(&str, Option<&[u8]>)> =
        members.iter().map(|(name, bytes)| (&**name, Some(&**bytes))).collect();
    layer(&entries)
}

fn examined(image: &[u8], base: Option<&[String]>) -> std::io::Result<ImageContents> {
    Ok(contents(&read(image)?, base, 10))
}

fn three_layers() -> Vec<Vec<u8>> {
    vec![
        layer(&[
            ("usr", None),
            ("usr/kept", Some(&[1; 3_000])),
            ("usr/changed", Some(&[2; 2_000])),
            ("var/cache/one", Some(&[3; 700])),
            ("var/cache/two", Some(&[3; 300])),
            ("opt/dir/inside", Some(&[4; 500])),
        ]),
        layer(&[("./usr/changed", Some(&[5; 2_500])), ("gone/", None), ("gone/soon", Some(&[6; 900]))]),
        layer(&[
            ("usr/changed", Some(&[7; 10])),
            (".wh.gone", Some(b"")),
            ("var/cache/.wh..wh..opq", Some(b"")),
            ("var/cache/three", Some(&[8; 40])),
            ("opt/dir", Some(&[9; 20])),
        ]),
    ]
}

#[test]
fn what_is_overwritten_or_deleted_is_wasted() {
    for layout in LAYOUTS {
        let instructions = ["FROM", "RUN /bin/sh -c make # buildkit", "COPY a b"];
        let image = image(layout, &three_layers(), &instructions);
        let base = ["sha256:0".to_owned()];
        let found = examined(&image, Some(&base)).unwrap();
        let layers: Vec<_> = found
            .layers
            .iter()
            .map(|layer| (&*layer.instruction, layer.bytes, layer.wasted_bytes, layer.is_of_base))
            .collect();
        assert_eq!(
            layers,
            [
                ("FROM", 6_500, 3_500, Some(true)),
                ("RUN make", 3_400, 3_400, Some(false)),
                ("COPY a b", 70, 0, Some(false)),
            ]
        );
        assert_eq!((found.bytes, found.visible_bytes, found.visible_files), (9_970, 3_070, 4));
        assert_eq!(found.wasted_bytes(), (3_500, 3_400));
        let wasted: Vec<_> =
            found.wasted.iter().map(|it| (&*it.path, it.bytes, it.times, it.is_deleted)).collect();
        assert_eq!(
            wasted,
            [
                ("/usr/changed", 4_500, 2, false),
                ("/gone/soon", 900, 1, true),
                ("/var/cache/one", 700, 1, true),
                ("/opt/dir/inside", 500, 1, true),
                ("/var/cache/two", 300, 1, true),
            ]
        );
        assert_eq!(found.files[0].path, "/usr/kept");
        assert_eq!((found.map.bytes, found.map.parts[0].name.as_str()), (3_070, "usr"));
    }
}

#[test]
fn an_image_that_is_built_on_something_else_has_no_base() {
    let image = image(Layout::Oci, &three_layers(), &["a", "b", "c"]);
    let other = ["sha256:9".to_owned()];
    let found = examined(&image, Some(&other)).unwrap();
    assert!(found.layers.iter().all(|layer| layer.is_of_base == Some(false)));
    let found = examined(&image, None).unwrap();
    assert!(found.layers.iter().all(|layer| layer.is_of_base.is_none()));
    assert_eq!(found.wasted_bytes(), (0, 6_900));
}

#[test]
fn a_layer_that_occurs_twice_may_be_a_link_and_adds_nothing() {
    let mut archive = tar::Builder::new(Vec::new());
    let one = layer(&[("a", Some(&[1; 100]))]);
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    put("x/layer.tar", &one);
    put("c.json", &config(2, &["one", "two"]));
    put("manifest.json", br#"[{"Config":"c.json","Layers":["x/layer.tar","y/layer.tar"]}]"#);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, "y/layer.tar", "../x/layer.tar").unwrap();
    let found = examined(&archive.into_inner().unwrap(), None).unwrap();
    let bytes: Vec<_> = found.layers.iter().map(|layer| (layer.bytes, layer.wasted_bytes)).collect();
    assert_eq!((bytes, found.bytes), (vec![(100, 0), (0, 0)], 100));
}

#[test]
fn hostile_names_are_shown_and_lead_nowhere() {
    let script = "</script><script>alert(1)</script>";
    let hostile = layer(&[
        ("../../etc/passwd", Some(&[1; 50])),
        ("a/../../b", Some(&[1; 50])),
        (script, Some(&[1; 400])),
        ("line\nbreak\u{1b}[2J", Some(&[1; 300])),
    ]);
    let found = examined(&image(Layout::Old, &[hostile], &["x"]), None).unwrap();
    assert_eq!(found.outside, 2);
    let shown: Vec<&str> = found.files.iter().map(|file| &*file.path).collect();
    assert_eq!(shown, ["/</script><script>alert(1)</script>", "/line\\nbreak\\u{1b}[2J"]);
}

#[test]
fn what_is_no_whole_image_is_refused() {
    let whole = image(Layout::Oci, &three_layers(), &["a", "b", "c"]);
    for cut in [100, whole.len() / 2, whole.len() - 3_000] {
        examined(&whole[..cut], None).unwrap_err();
    }
    let nothing = layer(&[("x", Some(b"y"))]);
    assert!(examined(&nothing, None).unwrap_err().to_string().contains("manifest.json"));
    let lacking = layer(&[
        ("c", Some(&config(1, &["a"]))),
        ("manifest.json", Some(br#"[{"Config":"c","Layers":["gone"]}]"#)),
    ]);
    assert!(examined(&lacking, None).unwrap_err().to_string().contains("layer 1"));
    // Nothing at all is an image of no layers, as `FROM scratch` gives.
    let empty =
        layer(&[("c", Some(&config(0, &[]))), ("manifest.json", Some(br#"[{"Config":"c","Layers":null}]"#))]);
    assert_eq!(examined(&empty, None).unwrap().layers, []);
}

#[test]
fn a_map_puts_small_things_together() {
    let names: Vec<String> = (0..2_000).map(|number| format!("small/{number:04}")).collect();
    let mut entries: Vec<(&str, Option<&[u8]>)> =
        names.iter().map(|name| (&**name, Some(&b"0123456789"[..]))).collect();
    let large = vec![0; 100_000];
    entries.extend([("large/one", Some(&large[..])), ("small/large", Some(&large[..50_000]))]);
    let found = examined(&image(Layout::Old, &[layer(&entries)], &["x"]), None).unwrap();
    let small = found.map.parts.iter().find(|part| part.name == "small").unwrap();
    let parts: Vec<_> = small.parts.iter().map(|part| (&*part.name, part.bytes, part.together)).collect();
    assert_eq!(parts, [("large", 50_000, 0), ("", 20_000, 2_000)]);
    let whole: u64 = found.map.parts.iter().map(|part| part.bytes).sum();
    assert_eq!((whole, found.map.bytes), (170_000, 170_000));
    assert_eq!(found.directories[0].path, "/large");
}
