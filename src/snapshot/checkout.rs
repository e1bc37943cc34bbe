//! A git reference becomes a commit, and a local repository becomes a part of the context.
//!
//! git itself does the work: its transports, credentials and formats are not ours to write again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use super::BakeError;
use crate::catalog::CheckoutRecord;
use crate::docker::SecretValue;
use crate::template::CheckoutSpec;

/// A repository at a commit.
#[derive(Debug)]
pub(super) struct Checkout {
    /// For the record; the URL without credentials.
    pub(super) record: CheckoutRecord,
    /// A bare repository with nothing but that commit, when the source is on this host.
    pub(super) repository: Option<TempDir>,
    /// Where the repository goes in the context.
    pub(super) prefix: String,
    /// Whether the build takes a token.
    pub(super) token: bool,
}

/// The parameters whose values a checkout finds out; nobody can give them.
pub const COMPUTED_PARAMETERS: [&str; 3] = ["commit", "local", "token"];

impl Checkout {
    /// Returns what the template needs to know.
    pub(super) fn computed(&self) -> [(String, String); 3] {
        let values =
            [self.record.commit.clone(), self.repository.is_some().to_string(), self.token.to_string()];
        let mut names = COMPUTED_PARAMETERS.into_iter();
        values.map(|value| (names.next().unwrap_or_default().to_owned(), value))
    }
}

/// Finds the commit that `spec` names, and takes it along when the repository is on this host.
///
/// The token, where there is one, goes to git in an environment variable that its credential helper reads: it stands in no
/// argument, file or URL.
pub(super) async fn resolve(spec: &CheckoutSpec, token: Option<&SecretValue>) -> Result<Checkout, BakeError> {
    if has_password(&spec.url) {
        let message =
            "the repository's URL holds a password, which would stand in the record: give it as a secret";
        return Err(BakeError::Input(message.into()));
    }
    let git = Git { spec, token };
    let local = local_path(&spec.url);
    let commit = match &local {
        Some(path) => git.local_commit(path).await?,
        None => git.remote_commit().await?,
    };
    let repository = match &local {
        Some(path) => Some(git.bare_repository(path, &commit).await?),
        None => None,
    };
    let record = CheckoutRecord { url: spec.url.clone(), reference: spec.reference.clone(), commit };
    Ok(Checkout {
        record,
        prefix: spec.prefix.clone(),
        token: token.is_some() && local.is_none(),
        repository,
    })
}

/// Returns whether the URL's authority has a user with a password.
fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// Returns the path that `url` names on this host: `file://` or a path; `host:path` and `scheme://` are elsewhere.
fn local_path(url: &str) -> Option<PathBuf> {
    if let Some(path) = url.strip_prefix("file://") {
        return Some(path.into());
    }
    let elsewhere = url.contains("://") || url.find(':').is_some_and(|colon| !url[..colon].contains('/'));
    (!elsewhere).then(|| url.into())
}

struct Git<'a> {
    spec: &'a CheckoutSpec,
    token: Option<&'a SecretValue>,
}

impl Git<'_> {
    async fn local_commit(&self, path: &Path) -> Result<String, BakeError> {
        let reference = if self.spec.reference.is_empty() { "HEAD" } else { &self.spec.reference };
        let path = path.to_string_lossy();
        let wanted = format!("{reference}^{{commit}}");
        let commit = self
            .run(&[
                "-c",
                "safe.directory=*",
                "-C",
                &path,
                "rev-parse",
                "--verify",
                "--end-of-options",
                &wanted,
            ])
            .await?;
        Ok(commit.trim().to_owned())
    }

    async fn remote_commit(&self) -> Result<String, BakeError> {
        let reference = if self.spec.reference.is_empty() { "HEAD" } else { &self.spec.reference };
        if is_commit(reference) {
            return Ok(reference.to_owned());
        }
        let peeled = format!("{reference}^{{}}");
        let listed =
            self.run(&["ls-remote", "--exit-code", "--", &self.spec.url, reference, &peeled]).await?;
        chosen(&listed, reference).ok_or_else(|| self.error("the repository has no such branch or tag"))
    }

    async fn bare_repository(&self, source: &Path, commit: &str) -> Result<TempDir, BakeError> {
        let local = |source| BakeError::Local { path: std::env::temp_dir(), source };
        let folder = tempfile::Builder::new().prefix("kiln-checkout-").tempdir().map_err(local)?;
        let source = std::path::absolute(source).map_err(local)?;
        let (target, source) = (folder.path().to_string_lossy(), format!("file://{}", source.display()));
        // An empty template leaves out the sample hooks; a fixed branch name keeps the user's configuration out.
        self.run(&["init", "--quiet", "--bare", "--template=", "--initial-branch=main", &target]).await?;
        let upload_pack =
            "--upload-pack=git -c safe.directory=* -c uploadpack.allowAnySHA1InWant=true upload-pack";
        self.run(&[
            "-C",
            &target,
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            upload_pack,
            &source,
            commit,
        ])
        .await?;
        self.run(&["-C", &target, "update-ref", "HEAD", commit]).await?;
        let fetch_head = folder.path().join("FETCH_HEAD");
        crate::base::fs::remove_durably(&fetch_head)
            .map_err(|source| BakeError::Local { path: fetch_head.clone(), source })?;
        Ok(folder)
    }

    /// Runs git and returns what it prints.
    async fn run(&self, arguments: &[&str]) -> Result<String, BakeError> {
        let mut command = Command::new("git");
        if let Some(token) = self.token {
            let helper = r#"credential.helper=!f() { echo username=x-access-token; echo "password=$KILN_GIT_TOKEN"; }; f"#;
            command.args(["-c", "credential.helper=", "-c", helper]);
            command.env("KILN_GIT_TOKEN", String::from_utf8_lossy(token.expose()).trim_end());
        }
        // A hook or a worktree may have set these for another repository, and they would win over `-C`.
        for name in [
            "DIR",
            "WORK_TREE",
            "COMMON_DIR",
            "INDEX_FILE",
            "OBJECT_DIRECTORY",
            "ALTERNATE_OBJECT_DIRECTORIES",
            "NAMESPACE",
            "SHALLOW_FILE",
        ] {
            command.env_remove(format!("GIT_{name}"));
        }
        command
            .args(arguments)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.error("`git` is not installed on this host"),
            _ => self.error(&error.to_string()),
        })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let reason = text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("; ");
            return Err(self.error(if reason.is_empty() {
                "no such branch, tag or commit"
            } else {
                &reason
            }));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn error(&self, reason: &str) -> BakeError {
        BakeError::Checkout {
            url: self.spec.url.clone(),
            reference: self.spec.reference.clone(),
            reason: reason.to_owned(),
        }
    }
}

fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Chooses from `git ls-remote`: a branch before a tag, and of a tag the commit that it points to.
fn chosen(listed: &str, reference: &str) -> Option<String> {
    let refs: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    [
        reference.to_owned(),
        format!("refs/heads/{reference}"),
        format!("refs/tags/{reference}^{{}}"),
        format!("refs/tags/{reference}"),
        format!("{reference}^{{}}"),
    ]
    .iter()
    .find_map(|wanted| refs.iter().find(|(_, name)| name == wanted))
    .map(|(commit, _)| (*commit).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for (url, local) in [
            ("/srv/repo.git", true),
            ("./repo", true),
            ("repo", true),
            ("file:///srv/repo", true),
            ("a/b:c", true),
            ("https://host/x", false),
            ("ssh://host/x", false),
            ("git@host:x", false),
        ] {
            assert_eq!(local_path(url).is_some(), local, "{url}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_seen() {
        for (url, has) in [
            ("https://user:secret@host/x", true),
            ("ssh://user@host/x", false),
            ("https://host:8443/x@y:z", false),
            ("git@host:x", false),
        ] {
            assert_eq!(has_password(url), has, "{url}");
        }
    }

    #[test]
    fn of_a_tag_the_commit_is_chosen() {
        let listed = "aaa\trefs/tags/v1\nbbb\trefs/tags/v1^{}\n";
        assert_eq!(chosen(listed, "v1").as_deref(), Some("bbb"));
        assert_eq!(chosen("ccc\trefs/heads/v1\naaa\trefs/tags/v1\n", "v1").as_deref(), Some("ccc"));
        assert_eq!(chosen("ddd\tHEAD\n", "HEAD").as_deref(), Some("ddd"));
        assert_eq!(chosen("aaa\trefs/heads/other/v1\n", "v1"), None);
    }

    #[tokio::test]
    async fn a_local_repository_gives_one_commit() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        let spec = |reference: &str| CheckoutSpec {
            url: path.to_owned(),
            reference: reference.to_owned(),
            prefix: "repo/git".to_owned(),
            secret: None,
        };
        let git = |arguments: &'static [&'static str]| {
            let identity = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-C", path];
            let status = std::process::Command::new("git").args(identity).args(arguments).status().unwrap();
            assert!(status.success());
        };
        git(&["init", "--quiet"]);
        git(&["commit", "--quiet", "--allow-empty", "-m", "one"]);
        git(&["commit", "--quiet", "--allow-empty", "-m", "two"]);
        let older = resolve(&spec("HEAD~1"), None).await.unwrap();
        let newer = resolve(&spec(""), None).await.unwrap();
        assert_ne!(older.record.commit, newer.record.commit);
        let bare = older.repository.as_ref().unwrap().path().to_str().unwrap().to_owned();
        let log =
            std::process::Command::new("git").args(["-C", &bare, "log", "--format=%H"]).output().unwrap();
        assert_eq!(String::from_utf8(log.stdout).unwrap().trim(), older.record.commit);
        let missing = resolve(&spec("nothing"), None).await.unwrap_err();
        assert!(matches!(missing, BakeError::Checkout { .. }), "{missing}");
    }
}
