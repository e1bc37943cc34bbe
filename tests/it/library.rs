//! The library as a backend uses it.

use kiln::base::Discard;
use kiln::docker::Engine;
use kiln::store::gc::{self, GcError};
use kiln::workspace::{self, Depot, WorkspaceError};

/// Stands for a value; nothing of this runs.
fn any<T>() -> T {
    unreachable!("only the types matter")
}

fn spawnable<T>(_job: impl Future<Output = T> + Send + 'static) {}

/// A backend spawns what a request asks for. A future that is not `Send`, or not for every lifetime, cannot be spawned, and that shows
/// only where somebody tries.
#[test]
fn every_job_of_a_workspace_may_be_spawned() {
    let _never = || {
        let depot = any::<Depot>;
        spawnable(async move {
            workspace::save(&depot(), any::<&'static std::path::Path>(), &any(), any(), &any()).await
        });
        spawnable(
            async move { workspace::save_archive(&depot(), any(), any(), &any(), any(), &any()).await },
        );
        spawnable(async move {
            let engine: Box<dyn Engine> = any();
            workspace::save_container(&depot(), &*engine, any(), any(), &any(), any(), &any()).await
        });
        spawnable(async move {
            workspace::restore(&depot(), &any(), any::<&'static std::path::Path>(), &any(), any(), &any())
                .await
        });
        spawnable(async move {
            workspace::restore_archive(&depot(), &any(), any(), any(), &any(), any(), &any()).await
        });
        spawnable(async move {
            let engine: Box<dyn Engine> = any();
            workspace::restore_container(&depot(), &*engine, &any(), any(), any(), &any(), any(), &any())
                .await
        });
        spawnable(async move {
            workspace::update(&depot(), &any(), any::<&'static std::path::Path>(), &any(), any(), &any())
                .await
        });
        spawnable(async move { workspace::copy(&depot(), &any(), &any(), any()).await });
        spawnable(async move { workspace::undo(&depot(), &any()).await });
        spawnable(async move { workspace::remove(&depot(), &any()).await });
        spawnable(async move { workspace::list(&depot(), None).await });
        spawnable(async move { workspace::find(&depot(), &any()).await });
        spawnable(async move { workspace::show(&depot(), &any()).await });
        spawnable(async move { workspace::diff(&depot(), &any(), &any()).await });
        spawnable(async move { workspace::pin(&depot(), &any(), any()).await });
        spawnable(async move { workspace::unpin(&depot(), &any()).await });
        spawnable(async move { workspace::pins(&depot(), None).await });
        spawnable(async move { workspace::removed(&depot(), None).await });
        spawnable(async move { workspace::find_removed(&depot(), &any()).await });
        spawnable(async move { workspace::cat(&depot(), &any(), &any(), None, &mut Vec::new()).await });
        spawnable(async move { workspace::check(&depot(), &any(), any(), &any()).await });
        spawnable(async move { workspace::stats(&depot(), &Discard, &any(), any()).await });
        spawnable(async move {
            let plan = workspace::plan_prune(&depot(), &any(), &any(), any(), &Discard).await?;
            workspace::prune(&depot(), plan, &Discard, &any()).await?;
            Ok::<_, WorkspaceError>(())
        });
    };
}

#[test]
fn every_job_of_a_collector_may_be_spawned() {
    let _never = || {
        let depot = any::<Depot>;
        spawnable(async move {
            let depot = depot();
            gc::collect(&depot.objects, &depot.index_cache(), &any(), &Discard, &any()).await?;
            gc::plan(&depot.objects, &depot.index_cache(), &any(), &Discard, &any()).await?;
            Ok::<_, GcError>(())
        });
        spawnable(async move {
            let depot = depot();
            gc::repair(&depot.objects, &depot.index_cache(), &any(), &Discard, &any()).await?;
            gc::tally(&depot.objects, &depot.index_cache(), &any(), &Discard, &any()).await?;
            Ok::<_, GcError>(())
        });
    };
}
