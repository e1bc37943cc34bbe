//! Templates from folders: what they become, and what is refused with which words.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln::base::fs::{Existing, write_durably};
use kiln::base::{ByteSize, Classify as _, ErrorKind};
use kiln::template::{
    CaSet, Library, ParameterType, RenderRequest, Rendered, TemplateError, export, lock_inputs, render,
};
use proptest::prelude::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates")
}

fn library() -> Library {
    Library::of_folder(&fixtures().join("library")).unwrap()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with(pairs: &[(&str, &str)]) -> RenderRequest {
    RenderRequest { parameters: map(pairs), ..RenderRequest::default() }
}

fn rendered(template: &str, request: &RenderRequest) -> Rendered {
    render(&library().locate(template).unwrap(), request).unwrap()
}

fn file<'a>(rendered: &'a Rendered, path: &str) -> &'a str {
    let file = rendered.files.iter().find(|file| file.path == path).unwrap();
    std::str::from_utf8(&file.bytes).unwrap()
}

/// Says an error as a face does.
fn said(error: &TemplateError, folder: &Path) -> String {
    let mut text = format!("{:?}: {error}", error.kind());
    if let Some(hint) = error.hint() {
        write!(text, "\n  hint: {hint}").unwrap();
    }
    text.replace(&folder.display().to_string(), "DIR")
}

/// Writes a library of files into a new folder.
fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write_durably(&folder.path().join(path), text.as_bytes(), Existing::Keep).unwrap();
    }
    folder
}

#[test]
fn a_template_becomes_a_dockerfile() {
    insta::assert_snapshot!(rendered("parent", &with(&[("greeting", "it's \"me\"")])).dockerfile);
}

#[test]
fn a_child_overrides_its_parent() {
    let request = RenderRequest {
        computed: map(&[("commit", "abc")]),
        ..with(&[("url", "https://git.test/x"), ("apt_mirror", "http://mirror.test/debian")])
    };
    let child = rendered("child", &request);
    insta::assert_snapshot!(child.dockerfile);
    assert_eq!(child.components, ["ca", "apt", "user", "service"]);
    assert_eq!((child.resources.cpu, child.resources.memory), (1, ByteSize(ByteSize::GIB)));
    assert_eq!(child.limits.build_write, ByteSize(2 * ByteSize::GIB));
    assert_eq!(child.runtime.workdir, "/srv");
    assert_eq!(child.runtime.start.as_deref(), Some("start hello"));
    assert_eq!(child.runtime.env["CHILD"], "https://git.test/x");
    assert_eq!(child.runtime.env["PARENT"], "1");
    assert!(child.runtime.env["PATH"].starts_with("/home/user/bin:/opt/service/bin:/usr/local/sbin:"));
    assert_eq!(
        child.checks.iter().map(|check| &check.cmd[..]).collect::<Vec<_>>(),
        ["greet hello", "test abc"]
    );
    assert_eq!(child.parameters["commit"], "abc");
    assert!(!child.parameters.contains_key("token") && !child.parameters.contains_key("release"));
    let modes: Vec<_> = child.files.iter().map(|file| (&file.path[..], file.mode)).collect();
    assert_eq!(
        modes,
        [
            ("child/hello", 0o644),
            ("service/requirements.in", 0o644),
            ("service/requirements.lock", 0o644),
            ("service/run", 0o755),
            ("service/service.conf", 0o644),
        ]
    );
    insta::assert_snapshot!(file(&child, "service/service.conf"));
}

#[test]
fn a_checkout_is_there_when_its_url_is() {
    let child = library().locate("child").unwrap();
    assert_eq!(child.checkout(&with(&[])).unwrap(), None);
    let checkout = child.checkout(&with(&[("url", "/srv/repository")])).unwrap().unwrap();
    assert_eq!((&checkout.url[..], &checkout.reference[..]), ("/srv/repository", "main"));
    assert_eq!((&checkout.prefix[..], checkout.secret.as_deref()), ("child/git", Some("token")));
    assert_eq!(library().locate("parent").unwrap().checkout(&with(&[])).unwrap(), None);
}

#[test]
fn rendering_again_gives_the_same_bytes() {
    for name in Library::shipped().list() {
        let template = Library::shipped().locate(&name).unwrap();
        let (one, two) = (render(&template, &with(&[])).unwrap(), render(&template, &with(&[])).unwrap());
        assert_eq!(one, two);
        assert!(one.dockerfile.ends_with('\n') && !one.dockerfile.contains("\n\n\n"), "{name}");
    }
}

#[test]
fn a_snapshot_as_base_brings_its_release_and_variables() {
    let first = rendered("parent", &with(&[]));
    let request = RenderRequest {
        base: Some("sha256:0123".to_owned()),
        base_is_snapshot: true,
        distro: first.distro.clone(),
        base_env: map(&[("PATH", "/old/bin:/bin"), ("OLD", "1")]),
        ..RenderRequest::default()
    };
    let second = rendered("parent", &request);
    assert!(second.dockerfile.contains("FROM sha256:0123\n\nUSER root\n"), "{}", second.dockerfile);
    assert_eq!(second.runtime.env["PATH"], "/home/user/bin:/opt/service/bin:/old/bin:/bin");
    assert_eq!(second.runtime.env["OLD"], "1");
}

#[test]
fn certificates_are_files_of_the_context() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = parameters.self_signed(&key).unwrap().pem();
    let folder = written(&[("ca.pem", &pem)]);
    let cas = CaSet::load(&[folder.path().to_owned()], "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    let request = RenderRequest { baked_cas: cas.clone(), build_cas: cas, ..RenderRequest::default() };
    let parent = rendered("parent", &request);
    assert!(
        parent.dockerfile.contains("COPY ca/baked-1.crt ")
            && parent.dockerfile.contains("COPY ca/build-1.crt ")
    );
    assert!(file(&parent, "ca/build-1.crt").starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!((parent.baked_cas.len(), parent.build_cas.len()), (1, 1));
}

#[test]
fn an_own_template_uses_own_and_shipped_components() {
    let mine = rendered(fixtures().join("own").to_str().unwrap(), &with(&[]));
    assert_eq!(mine.components, ["extra", "ca", "apt", "user"]);
    assert_eq!(file(&mine, "mine/again"), "a note\n");
    assert!(mine.dockerfile.contains("COPY extra/tool") && mine.dockerfile.contains("COPY mine/note"));
}

#[test]
fn a_parameter_may_name_an_own_template_to_extend() {
    let own = fixtures().join("own");
    let folder = written(&[(
        "template.toml",
        "schema = 1\nname = \"over\"\nextends = \"{{ params.on }}\"\n[parameters.on]\ntype = \"string\"\ndefault = \"parent\"\n",
    )]);
    let over = folder.path().to_str().unwrap();
    let request = with(&[("on", own.to_str().unwrap())]);
    assert_eq!(rendered(over, &request).components, ["extra", "ca", "apt", "user"]);
    assert_eq!(rendered(over, &with(&[])).components, ["ca", "apt", "user", "service"]);
    let circle = render(&library().locate(over).unwrap(), &with(&[("on", over)])).unwrap_err();
    assert_eq!(circle.to_string(), "templates need each other in a circle: over → over");
    let literal = written(&[("template.toml", "schema = 1\nname = \"x\"\nextends = \"../own\"\n")]);
    let template = library().locate(literal.path().to_str().unwrap()).unwrap();
    assert!(matches!(render(&template, &with(&[])), Err(TemplateError::Outside { .. })));
}

#[test]
fn a_plain_dockerfile_is_taken_as_it_is() {
    let folder = fixtures().join("plain");
    let template = library().locate(folder.to_str().unwrap()).unwrap();
    let plain = render(&template, &with(&[])).unwrap();
    assert_eq!((&plain.template[..], &plain.base[..]), ("plain", "debian:trixie-slim"));
    assert_eq!(plain.distro.unwrap().codename, "trixie");
    assert_eq!(plain.context_root.as_deref(), Some(folder.as_path()));
    assert!(plain.files.is_empty());
    assert!(matches!(render(&template, &with(&[("x", "1")])), Err(TemplateError::Unsupported { .. })));
}

#[test]
fn locks_are_listed_with_what_they_are_made_from() {
    let locks = lock_inputs(&library().locate("child").unwrap()).unwrap();
    assert_eq!(locks.len(), 1);
    assert_eq!((&locks[0].owner[..], &locks[0].library_path[..]), ("service", "components/service/files"));
    assert_eq!((&locks[0].input_text[..], &locks[0].folder), ("service\n", &None));
}

#[test]
fn templates_are_described_with_their_defaults() {
    let picky = library().locate("picky").unwrap().describe().unwrap();
    assert!(picky.parameters[0].name == "size" && picky.parameters[0].default.is_none());
    for name in Library::shipped().list() {
        let summary = Library::shipped().locate(&name).unwrap().describe().unwrap();
        assert!(!summary.description.is_empty() && !summary.checks.is_empty(), "{name}");
        assert_eq!(summary.bases.len(), 4, "{name}");
    }
    let sandbox = Library::shipped().locate("sandbox").unwrap().describe().unwrap();
    let refused: Vec<_> = sandbox.bases.iter().map(|base| base.refused.is_some()).collect();
    assert_eq!(refused, [false, false, true, true]);
}

#[test]
fn wrong_requests_are_refused_in_these_words() {
    let base = |base: &str| RenderRequest { base: Some(base.to_owned()), ..RenderRequest::default() };
    let computed =
        |pairs: &[(&str, &str)]| RenderRequest { computed: map(pairs), ..RenderRequest::default() };
    let cases: [(&str, RenderRequest); 20] = [
        ("parnet", with(&[])),
        ("something-else", with(&[])),
        ("./nowhere", with(&[])),
        ("parent", with(&[("greting", "x")])),
        ("parent", with(&[("colour", "x")])),
        ("parent", with(&[("greeting", "a\nRUN x")])),
        ("parent", with(&[("greeting", "a\0")])),
        ("parent", with(&[("token", "x")])),
        ("parent", with(&[("release", "sid")])),
        ("parent", with(&[("apt_mirror", "http://user:pass@mirror.test")])),
        ("picky", with(&[])),
        ("picky", with(&[("size", "big")])),
        ("child", with(&[("on", "other")])),
        ("child", with(&[("commit", "x")])),
        ("child", with(&[("on", "picky"), ("greeting", "x"), ("size", "1GiB")])),
        ("child", computed(&[("commit", "a\nb")])),
        ("parent", base("python:3.12")),
        ("parent", base("debian:12\nRUN x")),
        ("parent", base("--platform=x")),
        ("parent", base("")),
    ];
    let mut all = String::new();
    for (name, request) in cases {
        let error = library().locate(name).and_then(|template| render(&template, &request)).unwrap_err();
        writeln!(all, "{}", said(&error, &fixtures())).unwrap();
    }
    insta::assert_snapshot!(all);
}

#[test]
fn wrong_templates_are_refused_in_these_words() {
    const T: &str = "t/template.toml";
    const C: &str = "components/c/component.toml";
    const D: &str = "components/d/component.toml";
    const T_OK: &str = "schema = 1\nname = \"t\"\ncomponents = [{ use = \"c\" }]\n";
    const T_BOTH: &str = "schema = 1\nname = \"t\"\ncomponents = [{ use = \"c\" }, { use = \"d\" }]\n";
    const C_OK: &str = "schema = 1\nname = \"c\"\n";
    const D_OK: &str = "schema = 1\nname = \"d\"\n";
    let t = |more: &str| format!("schema = 1\nname = \"t\"\n{more}\n");
    let c = |more: &str| format!("schema = 1\nname = \"c\"\n{more}\n");
    let d = |more: &str| format!("schema = 1\nname = \"d\"\n{more}\n");
    let cases: Vec<Vec<(&str, String)>> = vec![
        vec![(T, "name = \"t\"".to_owned())],
        vec![(T, "schema = 2\nname = \"t\"\nnew = 1".to_owned())],
        vec![(T, t("colour = \"red\""))],
        vec![(T, t("x = [\n"))],
        vec![(T, "schema = 1\nname = \"u\"".to_owned())],
        vec![(T, t("components = [{ use = \"../c\" }]"))],
        vec![(T, t("components = [{ use = \"c\" }, { use = \"c\" }]")), (C, C_OK.to_owned())],
        vec![(T, t("[parameters.n]\ntype = \"int\"\ndefault = \"four\""))],
        vec![(T, t("[parameters.n]\ntype = \"number\""))],
        vec![(T, t("[parameters.n]\ntype = \"string\"\npattern = \"(\""))],
        vec![(T, t("[parameters.n]\ntype = \"enum\""))],
        vec![(T, t("[runtime]\nuser = \"Ro ot\""))],
        vec![(T, t("[runtime]\nworkdir = \"home\""))],
        vec![(T, t("[runtime.env]\nPATH = \"/x\""))],
        vec![(T, t("templated = [\"../x\"]"))],
        vec![(T, t("templated = [\"x\"]"))],
        vec![(T, t("extends = \"t\""))],
        vec![(T, t("[[check]]\nname = \"x\"\ncmd = \"{{ params.no }}\""))],
        vec![(T, t("components = [{ use = \"d\" }]")), (C, C_OK.to_owned())],
        vec![(T, t("components = [{ use = \"see\" }]")), (C, C_OK.to_owned())],
        vec![(T, T_OK.to_owned()), (C, c("requires = [\"d\"]")), (D, d("requires = [\"c\"]"))],
        vec![(T, T_BOTH.to_owned()), (C, c("conflicts = [\"d\"]")), (D, D_OK.to_owned())],
        vec![(T, T_BOTH.to_owned()), (C, c("[env]\nX = \"1\"")), (D, d("[env]\nX = \"2\""))],
        vec![
            (T, T_OK.to_owned()),
            (C, c("distros = [\"ubuntu\"]\ndistros_reason = \"it needs a package that Debian lacks\"")),
        ],
        vec![(T, t("components = [{ use = \"c\", with = { no = 1 } }]")), (C, C_OK.to_owned())],
        vec![(T, T_OK.to_owned()), (C, c("[env]\nX = \"{{ p.x }}\""))],
        vec![
            (T, T_OK.to_owned()),
            (C, C_OK.to_owned()),
            ("components/c/root.dockerfile", "RUN a\nRUN {{ x }}\n".into()),
        ],
        vec![
            (T, T_OK.to_owned()),
            (C, C_OK.to_owned()),
            ("components/c/root.dockerfile", "RUN {% if %}\n".into()),
        ],
        vec![
            (T, T_OK.to_owned()),
            (C, C_OK.to_owned()),
            ("components/c/root.dockerfile", "RUN a \\\n".into()),
        ],
        vec![
            (T, T_OK.to_owned().replace("\"t\"", "\"c\"")),
            (C, C_OK.to_owned()),
            ("components/c/files/x", "1".into()),
            ("c/files/x", "2".into()),
        ],
    ];
    let mut all = String::new();
    for mut files in cases {
        let name = if files.iter().any(|(path, _)| *path == "c/files/x") { "c" } else { "t" };
        if name == "c" {
            files[0].0 = "c/template.toml";
        }
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let folder = written(&files);
        let error = Library::of_folder(folder.path())
            .and_then(|library| library.locate(name))
            .and_then(|template| render(&template, &RenderRequest::default()))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        writeln!(all, "{}", said(&error, folder.path())).unwrap();
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_template_that_leads_out_of_its_folder_is_refused() {
    let outside = written(&[("secret", "x"), ("sub/x", "x")]);
    for (link, target) in [
        ("files/link", outside.path().join("secret")),
        ("files/link", outside.path().join("sub")),
        ("files/link", PathBuf::from("../../..")),
        ("root.dockerfile", outside.path().join("secret")),
        ("files", outside.path().join("sub")),
        ("components", outside.path().join("sub")),
        ("template.toml", outside.path().join("secret")),
    ] {
        let own = written(&[("keep/x", "")]);
        if link != "template.toml" {
            write_durably(&own.path().join("template.toml"), b"schema = 1\nname = \"t\"\n", Existing::Keep)
                .unwrap();
        }
        if link.contains('/') {
            fs::create_dir(own.path().join("files")).unwrap();
        }
        std::os::unix::fs::symlink(target, own.path().join(link)).unwrap();
        let error = library().locate(own.path().to_str().unwrap()).unwrap_err();
        assert!(matches!(&error, TemplateError::Outside { path, .. } if path == link), "{error:?}");
    }
    let plain = written(&[]);
    std::os::unix::fs::symlink(outside.path().join("secret"), plain.path().join("Dockerfile")).unwrap();
    assert!(matches!(library().locate(plain.path().to_str().unwrap()), Err(TemplateError::Outside { .. })));
}

#[test]
fn a_link_to_a_folder_above_does_not_run_forever() {
    let own = written(&[("template.toml", "schema = 1\nname = \"t\"\n"), ("files/a/x", "")]);
    std::os::unix::fs::symlink("..", own.path().join("files/a/up")).unwrap();
    let error = library().locate(own.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(error, TemplateError::Unusable { .. }), "{error:?}");
}

#[test]
fn an_export_takes_only_an_empty_folder_or_an_earlier_one() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let parent = rendered("parent", &with(&[]));
    let first = export(&parent, &out).unwrap();
    assert_eq!(first.len(), parent.files.len() + 1);
    assert_eq!(fs::read_to_string(out.join("Dockerfile")).unwrap(), parent.dockerfile);
    assert_eq!(fs::metadata(out.join("service/run")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(export(&parent, &out).unwrap(), first);
    let other = export(&rendered("child", &with(&[])), &out).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict);
    write_durably(&out.join("mine.txt"), b"x", Existing::Keep).unwrap();
    let foreign = export(&parent, &out).unwrap_err();
    assert!(foreign.to_string().contains("mine.txt"), "{foreign}");
    assert_eq!(fs::read(out.join("mine.txt")).unwrap(), b"x");
    let elsewhere = written(&[("x", "")]);
    assert_eq!(export(&parent, elsewhere.path()).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn a_plain_folder_is_exported_whole() {
    let home = tempfile::tempdir().unwrap();
    let template = library().locate(fixtures().join("plain").to_str().unwrap()).unwrap();
    let written = export(&render(&template, &with(&[])).unwrap(), &home.path().join("out")).unwrap();
    let names: Vec<_> =
        written.iter().map(|path| path.strip_prefix(home.path()).unwrap().to_owned()).collect();
    assert_eq!(names, [Path::new("out/Dockerfile"), Path::new("out/src/x")]);
}

/// Returns the text with every quoted word, of a shell or of an `ENV`, replaced: what is left is the structure.
fn skeleton(dockerfile: &str) -> String {
    let mut out = String::new();
    let mut rest = dockerfile;
    while let Some(c) = rest.chars().next() {
        let quoted = match c {
            '\'' => shell_quoted(rest),
            '"' => double_quoted(rest),
            _ => None,
        };
        match quoted {
            Some(length) => {
                out.push('§');
                rest = &rest[length..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// Returns the length of `'…'`, with any `\''…'` that continue it, within a line.
fn shell_quoted(text: &str) -> Option<usize> {
    let end = text[1..].find('\'')? + 2;
    if text[..end].contains('\n') {
        return None;
    }
    match text[end..].strip_prefix(r"\'").filter(|more| more.starts_with('\'')) {
        Some(more) => Some(end + 2 + shell_quoted(more)?),
        None => Some(end),
    }
}

fn double_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return None,
            '"' if !escaped => return Some(index + 1),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    None
}

const HOSTILE: [&str; 16] = [
    "\"; rm -rf /",
    "$(x)",
    "`x`",
    "'",
    "\"",
    "\\",
    "x\\",
    "'; x; '",
    "' \\",
    "<<EOF",
    "# x",
    "&& x || y | z > w",
    "{{ 7 * 7 }}{% raw %}",
    "--mount=type=secret,id=x",
    "${HOME}",
    "é\u{202e}x",
];

#[test]
fn hostile_values_change_no_structure_of_a_shipped_template() {
    let library = Library::shipped();
    let forms: [fn(&str) -> String; 4] = [
        |value| value.to_owned(),
        |value| format!("https://git.test/{value}"),
        |value| format!("/srv/{value}"),
        |value| format!("git@git.test:{value}"),
    ];
    let mut compared = 0;
    for name in library.list() {
        let template = library.locate(&name).unwrap();
        let summary = template.describe().unwrap();
        let texts = summary.parameters.iter().filter(|parameter| {
            matches!(parameter.kind, ParameterType::String | ParameterType::Version) && !parameter.secret
        });
        for parameter in texts {
            for form in forms {
                // Holds what makes every filter quote, as the hostile values do.
                let Ok(plain) = render(&template, &with(&[(&parameter.name, &form("b'c"))])) else {
                    continue;
                };
                for hostile in HOSTILE {
                    let Ok(attacked) = render(&template, &with(&[(&parameter.name, &form(hostile))])) else {
                        continue;
                    };
                    assert_eq!(
                        skeleton(&attacked.dockerfile),
                        skeleton(&plain.dockerfile),
                        "{name}: {} = {}",
                        parameter.name,
                        form(hostile)
                    );
                    compared += 1;
                }
            }
        }
    }
    // `repo` takes a free setup command and a free URL.
    assert!(compared > 20, "{compared}");
}

proptest! {
    #[test]
    fn no_value_panics_or_changes_the_structure(greeting in any::<String>(), url in "\\PC{0,40}", release in "\\PC{0,8}") {
        let child = library().locate("child").unwrap();
        let plain = render(&child, &with(&[("greeting", "b'c"), ("url", "b'c")])).unwrap();
        let request = with(&[("greeting", &format!("' {greeting}")), ("url", &url)]);
        if let Ok(attacked) = render(&child, &request) {
            prop_assert_eq!(skeleton(&attacked.dockerfile), skeleton(&plain.dockerfile));
        }
        let known = render(&child, &with(&[("release", &release)])).is_ok();
        prop_assert!(!known || ["", "bookworm", "12"].contains(&release.as_str()));
    }

    #[test]
    fn no_manifest_panics(text in any::<String>(), name in "\\PC{0,12}") {
        let folder = written(&[("t/template.toml", &format!("schema = 1\nname = \"t\"\n{text}"))]);
        let library = Library::of_folder(folder.path()).unwrap();
        let outcome = library.locate("t").and_then(|template| render(&template, &RenderRequest::default()));
        prop_assert!(outcome.is_ok() || outcome.is_err_and(|error| !error.to_string().is_empty()));
        prop_assert!(library.locate(&name).is_err() || name == "t");
    }
}

/// npm leaves the hash of a platform that it did not fetch empty, and would then install whatever it gets there.
#[test]
fn every_package_of_a_shipped_npm_lock_has_a_hash() {
    let text = fs::read_to_string("templates/components/opencode/files/package-lock.json").unwrap();
    let lock: serde_json::Value = serde_json::from_str(&text).unwrap();
    let packages = lock["packages"].as_object().unwrap();
    assert!(packages.len() > 1);
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        let hash = package["integrity"].as_str().unwrap_or_default();
        assert!(hash.starts_with("sha512-"), "{name} has no hash");
    }
}
