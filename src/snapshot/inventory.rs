//! Packages in an image, as its package managers tell them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::check::CHECK_LABEL;
use crate::base::{Discard, SnapshotId, StoreId};
use crate::catalog::Inventory;
use crate::docker::{ContainerSpec, Engine, EngineError, ExecSpec, NetworkMode};

/// How long listing may take: a tree of a million files is walked in a few seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Prints `kind<TAB>name<TAB>version`, one package a line. Python packages are found by their `dist-info` folders, wherever they
/// lie; Node packages by `node_modules` that is not inside another package.
const SCRIPT: &str = r#"
command -v dpkg-query >/dev/null && dpkg-query -W -f 'dpkg\t${Package}\t${Version}\n'
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp \) -prune -o \
  -type d -name '*.dist-info' -print 2>/dev/null |
  sed -n 's|.*/\([^/]*\)-\([^/-]*\)\.dist-info$|pip\t\1\t\2|p'
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp \) -prune -o \
  -path '*/node_modules/*/node_modules' -prune -o \
  -type f -name package.json \( -path '*/node_modules/*' ! -path '*/node_modules/*/*/*/*' -o -path '*/node_modules/@*/*' ! -path '*/node_modules/@*/*/*/*' \) \
  -print 2>/dev/null |
while IFS= read -r file; do
  name=${file##*/node_modules/}; name=${name%/package.json}
  case $name in @*/*/*|[!@]*/*) continue ;; esac
  version=$(sed -n 's/^ *"version" *: *"\([^"]*\)".*/\1/p' "$file" | head -n 1)
  [ -n "$version" ] && printf 'npm\t%s\t%s\n' "$name" "$version"
done
true
"#;

/// Lists the packages of `image` in a container of its own, without the network; `None` when cancelled.
pub(super) async fn list(
    engine: &dyn Engine,
    store: StoreId,
    id: SnapshotId,
    image: &str,
    cancel: &CancellationToken,
) -> Result<Option<Inventory>, EngineError> {
    let spec = ContainerSpec {
        image: image.to_owned(),
        name: format!("kiln-inventory-{id}"),
        entrypoint: Some(vec!["sleep".to_owned()]),
        cmd: Some(vec!["600".to_owned()]),
        user: Some("0".to_owned()),
        labels: BTreeMap::from([
            (CHECK_LABEL.to_owned(), id.to_string()),
            ("kiln.store".to_owned(), store.to_string()),
        ]),
        network: NetworkMode::None,
        ..ContainerSpec::default()
    };
    engine.remove_container(&spec.name).await?;
    let listed = match engine.start(&spec).await {
        // Only what runs in the container may be cut short: a start that is dropped could still make one.
        Ok(container) => tokio::select! {
            () = cancel.cancelled() => Ok(None),
            listed = run(engine, &container) => listed.map(Some),
        },
        Err(error) => Err(error),
    };
    engine.remove_container(&spec.name).await?;
    listed
}

async fn run(engine: &dyn Engine, container: &str) -> Result<Inventory, EngineError> {
    let exec = ExecSpec {
        cmd: ["sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
        user: Some("0".to_owned()),
        workdir: None,
        env: Vec::new(),
    };
    Ok(parse(&engine.exec(container, &exec, TIMEOUT, &Discard).await?.stdout))
}

fn parse(listing: &str) -> Inventory {
    let mut inventory = Inventory::default();
    for line in listing.lines() {
        let mut fields = line.splitn(3, '\t');
        let (Some(kind), Some(name), Some(version)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let kind = match kind {
            "dpkg" => &mut inventory.dpkg,
            "pip" => &mut inventory.pip,
            "npm" => &mut inventory.npm,
            _ => continue,
        };
        kind.insert(name.to_owned(), version.to_owned());
    }
    inventory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read_by_kind() {
        let inventory = parse("dpkg\tbash\t5.2\npip\tlitellm\t1.0\nnpm\t@a/b\t2\nnoise\nother\ta\tb\n");
        assert_eq!(inventory.dpkg["bash"], "5.2");
        assert_eq!(inventory.pip["litellm"], "1.0");
        assert_eq!(inventory.npm["@a/b"], "2");
    }
}
