//! Forty images of five names: each policy deletes exactly what its table says, and frees what it promised.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kiln::base::{SnapshotId, now};
use kiln::catalog::{Catalog, Mark, PlaceRecord, PlaceState, State, StateEntry, Way};
use kiln::objects::DirStore;
use serde_json::Value;

use super::harness::{BASE, Run, User, docker, docker_run, folder, text};

/// So many days before now.
fn days_ago(days: i64) -> Timestamp {
    now() - SignedDuration::from_hours(24 * days)
}

fn noise(path: &Path, bytes: u64) {
    let mut noise = std::fs::File::open("/dev/urandom").unwrap().take(bytes);
    std::io::copy(&mut noise, &mut std::fs::File::create(path).unwrap()).unwrap();
}

/// A user with images on the real engine, whose records say how old they are.
struct Fleet {
    user: User,
    catalog: Catalog,
    store: String,
    engine: String,
    runtime: tokio::runtime::Runtime,
}

/// Bytes of the layer that all images of a name have.
const SHARED: u64 = 400_000;

impl Fleet {
    fn new() -> Self {
        let user = User::new();
        user.run(&["snapshot", "list"]).ok();
        Self {
            catalog: Catalog::new(Arc::new(DirStore::new(user.home.join("store")))),
            store: user.store_id(),
            engine: docker(&["info", "--format", "{{.ID}}"]).trim().to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            user,
        }
    }

    /// Makes the images of a name, the newest first, ten days apart and half as long unused; each has a layer of its own.
    fn bake(&self, name: &str, sizes: &[u64]) -> Vec<SnapshotId> {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file);
        noise(&path("shared"), SHARED);
        let base = format!("kiln-prune-test-{}:{name}", self.store);
        super::harness::write(&path("base"), "FROM scratch\nCOPY shared /shared\n");
        super::harness::write(&path("own"), &format!("FROM {base}\nCOPY noise /own\n"));
        let build = |file: &str, tag: &str, id: &str| {
            let file = path(file);
            let mut command = Command::new("docker");
            command.env("DOCKER_BUILDKIT", "0").args([
                "build",
                "--quiet",
                "--tag",
                tag,
                "--file",
                text(&file),
            ]);
            for label in [
                "kiln.managed=true".to_owned(),
                format!("kiln.store={}", self.store),
                format!("kiln.snapshot={id}"),
            ] {
                if !id.is_empty() {
                    command.args(["--label", &label]);
                }
            }
            let run = Run::of(command.arg(folder.path()).output().unwrap());
            assert_eq!(run.code, 0, "{}", run.stderr);
            docker(&["image", "inspect", "--format", "{{.Id}}", tag]).trim().to_owned()
        };
        build("base", &base, "");
        let bake = |(at, size): (usize, &u64)| {
            let id = SnapshotId::generate();
            noise(&path("noise"), *size);
            let tag = format!("kiln/{name}:{id}");
            let image = build("own", &tag, &id.to_string());
            self.record(id, name, 10 * (i64::try_from(at).unwrap() + 1), &image, &tag);
            id
        };
        let ids = sizes.iter().enumerate().map(bake).collect();
        // The images stand on it still, and nothing else does.
        docker(&["rmi", &base]);
        ids
    }

    fn record(&self, id: SnapshotId, name: &str, age: i64, image: &str, tag: &str) {
        self.runtime.block_on(async {
            let mut record = crate::snapshot::record(name);
            (record.id, record.created) = (id, days_ago(age));
            self.catalog.create(&record).await.unwrap();
            for state in [State::Checking, State::Active] {
                assert!(self.catalog.transition(id, &StateEntry::to(state, record.created)).await.unwrap());
            }
            let place = PlaceRecord {
                version: 1,
                engine: self.engine.parse().unwrap(),
                endpoint: "unix:///var/run/docker.sock".into(),
                image: image.parse().unwrap(),
                tag: tag.to_owned(),
                state: PlaceState::Present,
                verified_at: record.created,
                last_used: None,
            };
            self.catalog.add_place(id, &place).await.unwrap();
            self.catalog.touch(id, &place.engine, days_ago(age / 2)).await.unwrap();
        });
    }

    /// Returns the references of this store's images on the engine.
    fn here(&self) -> BTreeSet<String> {
        let label = format!("label=kiln.store={}", self.store);
        let listed = docker(&["images", "--filter", &label, "--format", "{{.Repository}}:{{.Tag}}"]);
        listed.lines().map(str::to_owned).collect()
    }

    fn prune(&self, words: &[&str]) -> Value {
        let mut all = vec!["image", "prune", "--trust-created", "--json"];
        all.extend(words);
        self.user.run(&all).ok().json()
    }

    /// Prunes by rules, first to put aside and then to delete, and holds it to what should go.
    fn deletes(&self, rules: &[&str], what: &[(&str, SnapshotId)], freed: u64) {
        let expected: BTreeSet<String> = what.iter().map(|(name, id)| format!("kiln/{name}:{id}")).collect();
        let before = self.here();
        let rules = [rules, &["--grace", "0s"]].concat();
        self.prune(&[&rules[..], &["--apply"]].concat());
        let plan = self.prune(&rules);
        let of = |view: &Value, action: &str| -> BTreeSet<String> {
            let items = view["items"].as_array().unwrap().iter().filter(|item| item["action"] == action);
            items.map(|item| item["tag"].as_str().unwrap().to_owned()).collect()
        };
        let told = format!("{rules:?}: {plan:#}");
        let aside = before.difference(&self.here()).cloned().collect::<BTreeSet<_>>();
        let rest: BTreeSet<String> = expected.difference(&aside).cloned().collect();
        assert_eq!(of(&plan, "delete"), rest, "{told}");
        let applied = self.prune(&[&rules[..], &["--apply"]].concat());
        let gone: BTreeSet<String> = before.difference(&self.here()).cloned().collect();
        assert_eq!(gone, expected, "{told}");
        if aside.is_empty() {
            let promised = plan["freed_with_cache_bytes"].as_u64().unwrap();
            let measured = u64::try_from(applied["measured_bytes"].as_i64().unwrap()).unwrap();
            for (what, bytes) in [("promised", promised), ("measured", measured)] {
                assert!(bytes.abs_diff(freed) * 20 <= freed, "{what} {bytes} instead of {freed}: {told}");
            }
            assert_eq!(applied["freed_with_cache_bytes"], plan["freed_with_cache_bytes"]);
            assert_eq!(plan["freed_bytes"], plan["freed_with_cache_bytes"], "no build cache holds them");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Whatever a test that failed has left.
        let label = format!("label=kiln.store={}", self.store);
        let lines = |arguments: &[&str]| {
            let listed = docker_run(arguments).stdout;
            listed.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        for container in lines(&["ps", "--quiet", "--all", "--filter", &label]) {
            docker_run(&["rm", "--force", &container]);
        }
        for tag in lines(&["images", "--filter", &label, "--format", "{{.Repository}}:{{.Tag}}"]) {
            docker_run(&["rmi", &tag]);
        }
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn each_policy_deletes_what_its_table_says_and_frees_what_it_promised() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let theirs = other.bake("alpha", &[50_000, 60_000]);
    let sizes: Vec<u64> = (0..8).map(|at| 100_000 + 20_000 * at).collect();
    let size = |at: usize| sizes[at];
    let [alpha, beta, gamma, delta, epsilon] =
        ["alpha", "beta", "gamma", "delta", "epsilon"].map(|name| fleet.bake(name, &sizes));
    let catalog = &fleet.catalog;
    fleet.runtime.block_on(async {
        catalog.mark(alpha[7], Mark::Pin, now()).await.unwrap();
        let (name, channel) = ("beta".parse().unwrap(), "prod".parse().unwrap());
        for at in [6, 5] {
            let promoted = days_ago(10 * (i64::try_from(at).unwrap() + 1));
            catalog.move_channel(&name, &channel, beta[at], Way::On, promoted).await.unwrap();
        }
        catalog.mark(epsilon[4], Mark::Expire { at: Some(days_ago(1)) }, now()).await.unwrap();
        let revoked = StateEntry { reason: Some("CVE".into()), ..StateEntry::to(State::Revoked, now()) };
        assert!(catalog.transition(epsilon[3], &revoked).await.unwrap());
        // One more record stands on an image of delta: a snapshot that another engine has.
        let mut above = crate::snapshot::record("zeta");
        above.base.snapshot = Some(delta[6]);
        above.created = days_ago(90);
        catalog.create(&above).await.unwrap();
    });
    docker(&[
        "create",
        "--name",
        &format!("kiln-prune-test-{}", fleet.store),
        &format!("kiln/gamma:{}", gamma[7]),
        "x",
    ]);
    assert_eq!(fleet.here().len(), 40);

    // Without --apply nothing changes, and everything is told.
    let plan = fleet.prune(&["--keep-last", "1"]);
    assert_eq!((&plan["applied"], fleet.here().len()), (&false.into(), 40));
    let code = |name: &str, id: SnapshotId| {
        let items = plan["items"].as_array().unwrap();
        let found = items
            .iter()
            .find(|item| item["id"] == id.to_string())
            .unwrap_or_else(|| panic!("{name}: {plan:#}"));
        found["code"].as_str().unwrap().to_owned()
    };
    for (name, id, expected) in [
        ("alpha", alpha[7], "pinned"),
        ("alpha", alpha[0], "keep_last"),
        ("alpha", alpha[1], "over_keep_last"),
        ("beta", beta[5], "channel"),
        ("beta", beta[6], "channel"),
        ("gamma", gamma[7], "container"),
        ("delta", delta[6], "parent"),
        ("epsilon", epsilon[3], "revoked"),
        ("epsilon", epsilon[4], "expired"),
    ] {
        assert_eq!(code(name, id), expected, "{name}");
    }
    let foreign = |plan: &Value| {
        let items = plan["items"].as_array().unwrap().iter();
        items
            .filter(|item| item["action"] == "foreign" && item["reason"].to_string().contains(&other.store))
            .count()
    };
    assert_eq!(foreign(&plan), 2);

    // What the engine's own prune would take: every image that no container holds, whatever it is to whom.
    let held = docker(&["ps", "--all", "--no-trunc", "--format", "{{.Image}}"]);
    let taken: BTreeSet<String> =
        fleet.here().into_iter().filter(|tag| !held.contains(tag.as_str())).collect();
    assert_eq!(taken.len(), 39);
    for (name, id) in [("alpha", alpha[7]), ("beta", beta[5]), ("beta", beta[6]), ("delta", delta[6])] {
        assert!(taken.contains(&format!("kiln/{name}:{id}")), "pinned, promoted or stood on");
    }
    let plan = fleet.prune(&["--unused-for", "20d"]);
    assert_eq!(plan["deactivated"].as_u64().unwrap() + plan["waiting"].as_u64().unwrap(), 20, "{plan:#}");

    // The revoked one has no step before its deletion.
    fleet.deletes(&["--expired"], &[("epsilon", epsilon[3]), ("epsilon", epsilon[4])], 0);
    let name = |name: &'static str| ["--name", name];
    fleet.deletes(
        &[&name("alpha")[..], &["--keep-last", "5"]].concat(),
        &[("alpha", alpha[5]), ("alpha", alpha[6])],
        size(5) + size(6),
    );
    fleet.deletes(
        &[&name("beta")[..], &["--unused-for", "20d"]].concat(),
        &[("beta", beta[3]), ("beta", beta[4]), ("beta", beta[7])],
        size(3) + size(4) + size(7),
    );
    fleet.deletes(
        &[&name("gamma")[..], &["--max-age", "60d"]].concat(),
        &[("gamma", gamma[5]), ("gamma", gamma[6])],
        size(5) + size(6),
    );
    fleet.deletes(
        &[&name("delta")[..], &["--max-age", "50d"]].concat(),
        &[("delta", delta[4]), ("delta", delta[5]), ("delta", delta[7])],
        size(4) + size(5) + size(7),
    );
    // Least recently used, of all names: epsilon 7, 6, 5 after 40, 35 and 30 days; the next ones after 25.
    let own = fleet.user.run(&["image", "list", "--json"]).ok().json()["bytes"].as_u64().unwrap();
    let most = (own - size(7) - size(6) - 1).to_string();
    fleet.deletes(
        &["--max-total", &format!("{most}B")],
        &[("epsilon", epsilon[7]), ("epsilon", epsilon[6]), ("epsilon", epsilon[5])],
        size(7) + size(6) + size(5),
    );
    // What no disk can give: everything unguarded goes, and the layer that all have with the last of them.
    let total = fleet.user.run(&["image", "list", "--json"]).ok().json()["disk"]["total_bytes"].to_string();
    fleet.deletes(
        &[&name("epsilon")[..], &["--high", "1", "--low", "0"]].concat(),
        &[("epsilon", epsilon[0]), ("epsilon", epsilon[1]), ("epsilon", epsilon[2])],
        size(0) + size(1) + size(2) + SHARED,
    );
    // Too little free space: at once, without a step before.
    let plan = fleet.prune(&["--name", "gamma", "--min-free", &format!("{total}B")]);
    assert!(plan["missing_bytes"].as_u64().unwrap() > 0);
    assert_eq!(plan["deleted"], 5, "{plan:#}");
    fleet.prune(&["--name", "gamma", "--min-free", &format!("{total}B"), "--apply"]);
    let left: BTreeSet<String> = fleet.here().into_iter().filter(|tag| tag.contains("gamma")).collect();
    assert_eq!(left, BTreeSet::from([format!("kiln/gamma:{}", gamma[7])]));
    // A saved plan, and just that.
    let file = fleet.user.home.join("plan.json");
    fleet.prune(&["--name", "alpha", "--keep-last", "2", "--grace", "0s", "--apply"]);
    fleet.prune(&["--name", "alpha", "--keep-last", "2", "--grace", "0s", "--plan", text(&file)]);
    fleet.runtime.block_on(catalog.mark(alpha[3], Mark::Pin, now())).unwrap();
    let apply = ["image", "prune", "--plan", text(&file), "--apply", "--json"];
    let applied = fleet.user.run(&apply).ok().json();
    assert_eq!(applied["deleted"], 2, "{applied:#}");
    let left: BTreeSet<String> = fleet.here().into_iter().filter(|tag| tag.contains("alpha")).collect();
    assert_eq!(left, [0, 1, 3, 7].map(|at| format!("kiln/alpha:{}", alpha[at])).into());

    assert_eq!(other.here(), theirs.iter().map(|id| format!("kiln/alpha:{id}")).collect());
    let audit = std::fs::read_to_string(fleet.user.home.join("state/kiln/image/prune.jsonl")).unwrap();
    let deleted = audit
        .lines()
        .filter(|line| line.contains(r#""action":"delete""#) && line.contains(r#""outcome":"done""#));
    assert_eq!(deleted.count(), 40 - fleet.here().len());
    let said = fleet.user.run(&["image", "prune", "--keep-last", "1"]).ok().stdout;
    assert!(said.contains("the channel `prod` holds it") && said.contains("would be put aside"), "{said}");
    assert!(fleet.user.run(&["image", "list"]).ok().stdout.contains("prod (before)"));
}

/// Deleting an image frees nothing at once that the build cache has as well: that was promised before it was known.
#[test]
#[ignore = "needs a Docker Engine"]
fn bytes_that_the_build_cache_has_too_are_told_apart() {
    const BYTES: u64 = 5_000_000;
    let user = User::new();
    let steps = format!("RUN head -c {BYTES} /dev/urandom > /five && echo {}\n", std::process::id());
    let folder = folder(&format!("FROM {BASE}\n{steps}"));
    user.build(text(folder.path()), &["--name", "cached", "--builder", "buildkit", "--skip-checks"]).ok();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let rules = ["--unused-for", "1s", "--min-age", "0s", "--grace", "0s", "--trust-created", "--json"];
    let prune = |words: &[&str]| user.run(&[&["image", "prune"], &rules[..], words].concat()).ok().json();
    assert_eq!(prune(&["--apply"])["deactivated"], 1);
    let plan = prune(&[]);
    let bytes = |view: &Value, name: &str| view[name].as_u64().unwrap();
    assert!(bytes(&plan, "freed_with_cache_bytes").abs_diff(BYTES) * 20 <= BYTES, "{plan:#}");
    assert!(bytes(&plan, "freed_bytes") * 20 <= BYTES, "{plan:#}");
    let applied = prune(&["--apply"]);
    assert_eq!((bytes(&applied, "deleted"), user.leftovers().as_str()), (1, ""));
    let measured = applied["measured_bytes"].as_i64().unwrap();
    assert!(measured.unsigned_abs().abs_diff(BYTES) * 20 <= BYTES, "{applied:#}");
    // Gone from the images, and still in the cache.
    let cached = docker(&["system", "df", "--verbose", "--format", "{{json .BuildCache}}"]);
    assert!(cached.contains(&format!("echo {}", std::process::id())), "{cached}");
}
