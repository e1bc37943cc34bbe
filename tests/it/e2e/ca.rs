//! Certificates: baked ones are trusted in the image, a build's own are not.

use std::path::Path;
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::harness::{Run, User, docker_run, tag, text, write};

/// A CA, and a server's certificate and key that it vouches for.
struct Authority {
    folder: tempfile::TempDir,
}

fn authority(name: &str) -> Authority {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write(&folder.path().join("ca.crt"), &issuer.pem());
    let key = KeyPair::generate().unwrap();
    let server =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    write(&folder.path().join("server.crt"), &server.pem());
    write(&folder.path().join("server.key"), &key.serialize_pem());
    Authority { folder }
}

/// A server and its clients, in one sandbox without a network: what is trusted is the image's business alone.
const TALK: &str = r#"
python3 - <<'SERVER' &
import http.server, ssl
server = http.server.HTTPServer(("127.0.0.1", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/server.crt", "/tls/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
SERVER
for _ in $(seq 1 50); do curl -ks https://localhost:8443/ >/dev/null && break; sleep 0.2; done
curl -sS -o /dev/null https://localhost:8443/ && echo curl verifies
python3 -c 'import urllib.request; urllib.request.urlopen("https://localhost:8443/")' && echo python verifies
git ls-remote https://localhost:8443/x 2>&1 | grep -qi 'not found' && echo git verifies
true
"#;

fn talk(image: &str, authority: &Authority) -> Run {
    let mount = format!("{}:/tls:ro", text(authority.folder.path()));
    let readable = std::process::Command::new("chmod")
        .args(["-R", "a+rX", text(authority.folder.path())])
        .status()
        .unwrap();
    assert!(readable.success());
    docker_run(&["run", "--rm", "--network", "none", "--volume", &mount, image, "bash", "-c", TALK])
}

/// A small template with the component that handles certificates.
fn template(folder: &Path) -> String {
    let path = folder.join("trusting");
    write(
        &path.join("template.toml"),
        "schema = 1\nname = \"trusting\"\ndescription = \"A test.\"\ncomponents = [{ use = \"ca\" }, { use = \"apt\" }, { use = \"base\" }, { use = \"python\" }, { use = \"entrypoint\" }, { use = \"user\" }]\n[runtime]\nuser = \"user\"\nuid = 1000\nentrypoint = [\"/usr/bin/tini\", \"-s\", \"--\", \"/usr/local/bin/kiln-entrypoint\"]\n",
    );
    text(&path).to_owned()
}

fn user() -> &'static User {
    static USER: OnceLock<User> = OnceLock::new();
    USER.get_or_init(User::new)
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_server_of_a_baked_ca_verifies_and_one_of_a_build_ca_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (baked, build) = (authority("Kiln test, baked"), authority("Kiln test, build only"));
    let (baked_file, build_file) = (baked.folder.path().join("ca.crt"), build.folder.path().join("ca.crt"));
    let arguments = ["--ca-cert", text(&baked_file), "--build-ca", text(&build_file)];
    let built = user().build(&template(folder.path()), &arguments).ok().json();
    assert_eq!(built["baked_cas"].as_array().unwrap().len(), 1);
    let image = tag(&built);
    let trusted = talk(&image, &baked);
    trusted.says(&["curl verifies", "python verifies", "git verifies"]);
    let untrusted = talk(&image, &build);
    assert!(!untrusted.stdout.contains("verifies"), "{}{}", untrusted.stdout, untrusted.stderr);
    user().clean();
    assert_eq!(user().leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_refused_certificate_is_named_before_anything_is_built() {
    let ca = authority("Kiln test");
    let user = User::new();
    let file = |name: &str| ca.folder.path().join(name);
    write(&file("garbage.crt"), "no certificate");
    for (name, words) in [
        ("server.crt", "server.crt"),
        ("server.key", "server.key"),
        ("garbage.crt", "garbage.crt"),
        ("none.crt", "none.crt"),
    ] {
        user.run(&["build", "crabbox-ready", "--ca-cert", text(&file(name))]).exits(2).says(&[words]);
    }
    assert!(user.snapshots().is_empty());
}

#[test]
#[ignore = "needs a Docker Engine"]
fn litellm_trusts_a_baked_ca() {
    // One authority for all runs, so that the snapshot is reused.
    let user = User::lasting();
    let kept = user.home.join("authority");
    if !kept.join("server.key").exists() {
        let fresh = authority("Kiln test, litellm");
        for name in ["ca.crt", "server.crt", "server.key"] {
            write(&kept.join(name), &std::fs::read_to_string(fresh.folder.path().join(name)).unwrap());
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["ca.crt", "server.crt", "server.key"] {
        std::fs::copy(kept.join(name), folder.path().join(name)).unwrap();
    }
    let built =
        user.build("litellm", &["--name", "litellm-ca", "--ca-cert", text(&kept.join("ca.crt"))]).ok().json();
    assert_eq!(built["state"], "active");
    talk(&tag(&built), &Authority { folder }).says(&["curl verifies", "python verifies", "git verifies"]);
}
