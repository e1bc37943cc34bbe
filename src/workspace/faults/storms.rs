//! Everything fails now and then, several hosts save at once, and collectors run between them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::collector::Run;
use super::scene::{Look, Scene, change, look, plant, seeds};
use crate::objects::SimFaults;

async fn storm(seed: u64, collectors: usize) {
    let scene = Arc::new(Scene::new(seed));
    let faults = SimFaults {
        fail_before: 8,
        fail_after: 8,
        late: 8,
        tear: 8,
        throttle: 8,
        delay: 300,
        split_list: 300,
    };
    scene.sim.set_faults(faults);
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let attempted: Arc<Mutex<Vec<Look>>> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    for actor in 0..3_u64 {
        let (scene, acknowledged, attempted) =
            (Arc::clone(&scene), Arc::clone(&acknowledged), Arc::clone(&attempted));
        tasks.spawn(async move {
            let (tree, host) = (scene.path(&format!("tree-{actor}")), scene.host(&format!("host-{actor}")));
            plant(&tree, seed + actor / 2);
            for round in 0..4 {
                let there = look(&tree);
                attempted.lock().unwrap().push(there.clone());
                let name = if actor == 2 { "other" } else { "w" };
                if let Ok(report) = host.save(&tree, name).await {
                    acknowledged.lock().unwrap().insert(report.revision, there);
                }
                change(&tree, seed * 10 + round);
            }
        });
    }
    for actor in 0..collectors {
        let scene = Arc::clone(&scene);
        tasks.spawn(async move {
            let name = format!("collector-{actor}");
            for _ in 0..3 {
                // What fails here leaves a run that is never ended.
                let _ended = Run::begin(scene.host(&name)).finish().await.is_ok();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|stopped| panic!("seed {seed}: {stopped}"));
    }
    scene.sim.set_faults(SimFaults::default());
    scene.sim.land_late_writes();
    let (acknowledged, attempted) = (acknowledged.lock().unwrap().clone(), attempted.lock().unwrap().clone());
    scene.verify(&acknowledged, &attempted.iter().collect::<Vec<_>>()).await;
    Run::begin(scene.host("last")).finish().await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    scene.verify(&acknowledged, &attempted.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_in_a_storm_comes_back() {
    for seed in seeds(8) {
        storm(seed, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_beside_collectors_comes_back() {
    for seed in seeds(8) {
        storm(seed, 1 + usize::from(seed % 2 == 0)).await;
    }
}
