//! Runs all rules, applies suppressions.

use super::script::{Command, commands_of};
use super::{Finding, LintInput, commands, features, files, image, packages, secrets, suppress};
use crate::template::dockerfile::{Dockerfile, Instruction, Keyword};

/// What rules look at.
pub(super) struct Subject<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) input: &'a LintInput,
    /// Every `RUN` with its commands.
    pub(super) runs: Vec<(&'a Instruction, Vec<Command>)>,
}

impl Subject<'_> {
    /// Returns the line that stands for the last stage.
    pub(super) fn last_stage_line(&self) -> u32 {
        self.file.stages().last().map_or(1, |stage| stage.line)
    }
}

/// Returns what the rules find in `dockerfile`, in the order of lines, less what comments suppress.
///
/// Reads nothing but whether files are in the context folder that `input` names.
#[must_use]
pub fn lint(dockerfile: &Dockerfile, input: &LintInput) -> Vec<Finding> {
    let runs = dockerfile.instructions().iter().filter(|instruction| instruction.keyword == Keyword::Run);
    let subject = Subject {
        file: dockerfile,
        input,
        runs: runs.map(|instruction| (instruction, commands_of(instruction))).collect(),
    };
    let mut findings = Vec::new();
    secrets::check(&subject, &mut findings);
    packages::check(&subject, &mut findings);
    commands::check(&subject, &mut findings);
    image::check(&subject, &mut findings);
    files::check(&subject, &mut findings);
    features::check(&subject, &mut findings);
    let mut findings = suppress::apply(&subject, findings);
    findings.sort_by(|a, b| (a.line, a.id).cmp(&(b.line, b.id)));
    findings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::template::lint::{LintContext, LintFeatures, Severity, rules};

    fn found(text: &str, input: &LintInput) -> Vec<(&'static str, u32)> {
        let file = Dockerfile::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        lint(&file, input).into_iter().map(|finding| (finding.id, finding.line)).collect()
    }

    fn lines(id: &str, text: &str, input: &LintInput) -> Vec<u32> {
        found(text, input).into_iter().filter(|(found, _)| *found == id).map(|(_, line)| line).collect()
    }

    fn in_folder(folder: &Path) -> LintInput {
        LintInput { context: LintContext::Folder(folder.to_owned()), features: None }
    }

    fn with_features(features: LintFeatures) -> LintInput {
        LintInput { context: LintContext::Unknown, features: Some(features) }
    }

    const NONE: [u32; 0] = [];

    const QUIET: &str = "FROM debian:12-slim\nRUN apt-get update \\\n && apt-get install -y --no-install-recommends git=1:2.39.5 \\\n && rm -rf /var/lib/apt/lists/*\nWORKDIR /work\nUSER app\nENTRYPOINT [\"sleep\", \"infinity\"]\n";

    #[test]
    fn a_careful_dockerfile_has_no_findings() {
        assert_eq!(found(QUIET, &LintInput::default()), []);
    }

    /// For each rule that needs nothing but the text: what fires, in which line, and what does not.
    fn table() -> Vec<(&'static str, String, u32, String)> {
        // Taken apart, so that nobody who scans for tokens finds one here.
        let token = ["ghp", &"a1B2".repeat(9)].join("_");
        let pem = ["-----BEGIN RSA PRIVATE", "KEY-----"].join(" ");
        let mut rows = vec![
            (
                "KL002",
                format!("RUN x && \\\n curl -H {token} y"),
                3,
                "RUN curl -H \"$(cat /run/secrets/t)\" y".to_owned(),
            ),
            ("KL002", format!("COPY <<E /k\nhi\n{pem}\nE"), 4, "COPY <<E /k\nhi\nE".to_owned()),
        ];
        for (id, fires, line, quiet) in [
            ("KL001", "ENV A=b \\\n DB_PASSWORD=x", 3, "ENV DB_PASSWORD_FILE=/run/secrets/db TOKEN="),
            ("KL001", "ARG NPM_TOKEN", 2, "ARG NPM_VERSION"),
            ("KL001", "ONBUILD ENV API_KEY=x", 2, "ONBUILD ENV API=x"),
            ("KL002", "ENV U=https://me:hunter2@example.org/", 2, "ENV U=https://me:$PASS@example.org/"),
            ("KL003", "FROM busybox:latest", 2, "FROM host:5000/busybox:1"),
            ("KL003", "FROM host:5000/busybox", 2, "FROM busybox@sha256:00"),
            ("KL003", "FROM busybox AS b", 2, "FROM busybox:1 AS b\nFROM b\nFROM scratch"),
            ("KL004", "RUN a &&\\\n apt-get update", 3, "RUN apt-get update && rm -rf /var/lib/apt/lists/*"),
            ("KL004", "RUN apt update", 2, "RUN --mount=type=cache,target=/var/lib/apt apt update"),
            ("KL004", "RUN <<E\nset -e\napt-get update\nE", 4, "RUN apt-get update\nFROM y:1"),
            ("KL005", "RUN apt-get install -y a=1", 2, "RUN apt-get install -y --no-install-recommends a=1"),
            ("KL005", "RUN apt-get install a=1", 2, "RUN apt-get -o APT::Install-Recommends=0 install a=1"),
            (
                "KL006",
                "RUN apt-get install -y a b=1",
                2,
                "RUN apt-get install -y b=1 ./c.deb $MORE >/dev/null",
            ),
            (
                "KL007",
                "RUN pip install --no-cache-dir a b==1",
                2,
                "RUN pip install --only-binary :all: -r requirements.txt 'b==1' .",
            ),
            ("KL007", "RUN python3 -m pip install a", 2, "RUN pip install -c limits.txt a"),
            ("KL007", "RUN uv pip install a", 2, "RUN uv sync"),
            ("KL008", "RUN npm install -g @a/b c@1", 2, "RUN npm install -g @a/b@2 c@1 ./d"),
            ("KL008", "RUN yarn global add a", 2, "RUN npm ci && npm install"),
            ("KL009", "USER root", 2, "USER app"),
            ("KL009", "USER app\nUSER 0:0", 3, "USER root\nUSER 1000:0"),
            ("KL009", "RUN x", 1, "USER app\nRUN x"),
            ("KL010", "WORKDIR app", 2, "WORKDIR /app"),
            ("KL010", "WORKDIR ./app", 2, "WORKDIR $HOME/app"),
            ("KL011", "CMD run it", 2, "CMD [\"run\", \"it\"]"),
            ("KL011", "ENTRYPOINT run it", 2, "ENTRYPOINT [\"run\", \"it\"]"),
            ("KL012", "ADD https://example.org/a /a", 2, "ADD --checksum=sha256:00 https://example.org/a /a"),
            ("KL012", "ADD http://example.org/a /a", 2, "ADD a.tar /a"),
            ("KL013", "RUN curl -f u | sh", 2, "RUN set -o pipefail; curl -f u | sh"),
            (
                "KL013",
                "RUN wget -O- u | tar x",
                2,
                "SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\nRUN wget -O- u | tar x",
            ),
            ("KL013", "RUN curl -f u | sh; set -o pipefail", 2, "RUN curl -f u || sh; echo '| curl | sh'"),
            ("KL016", "RUN <<E\nx\nE", 2, "RUN --mount=type=secret,id=a x"),
            ("KL016", "COPY --link a /a", 2, "COPY --chmod=755 a /a"),
            ("KL016", "RUN --mount=type=secret,id=a,env=A x", 2, "COPY --link=false a /a"),
            ("KL017", "CMD [\"a\"]", 2, "ENTRYPOINT [\"a\"]"),
            ("KL017", "ENTRYPOINT [\"a\"]\nENTRYPOINT []", 1, "ENTRYPOINT a"),
            (
                "KL018",
                "ENTRYPOINT [\"/bin/bash\"]",
                2,
                "ENTRYPOINT [\"/bin/bash\"]\nCMD [\"-c\", \"sleep infinity\"]",
            ),
            ("KL018", "CMD [\"python3\"]", 2, "CMD [\"python3\", \"serve.py\"]"),
            (
                "KL018",
                "ENTRYPOINT [\"sh\", \"-c\", \"start && echo hi\"]",
                2,
                "ENTRYPOINT [\"sh\", \"-c\", \"echo hi; exec serve\"]",
            ),
            ("KL020", "RUN apt-get update && apt-get -y dist-upgrade", 2, "RUN apt-get install -y upgrade"),
            ("KL021", "RUN a && sudo -E b", 2, "RUN apt-get install -y sudo"),
            ("KL022", "# kiln: ignore=KL021 why\nUSER app", 2, "# kiln: ignore=KL009 why\nUSER root"),
            ("KL022", "# kiln: ignore=KL999 why\nUSER app", 2, "# kilns are hot"),
            ("KL022", "# kiln: please\nUSER app", 2, "# kiln: ignore=missing-source why\nCOPY a /a"),
            ("KL023", "# kiln: ignore=KL009\nUSER root", 2, "# kiln: ignore=KL009 why\nUSER root"),
        ] {
            rows.push((id, fires.to_owned(), line, quiet.to_owned()));
        }
        rows
    }

    #[test]
    fn every_rule_fires_and_stays_quiet() {
        let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
        for (id, fires, line, quiet) in table() {
            let input = LintInput::default();
            let (loud, silent) = (format!("FROM x:1\n{fires}"), format!("FROM x:1\n{quiet}"));
            let (loud, silent) = (lines(id, &loud, &input), lines(id, &silent, &input));
            if loud != [line] || !silent.is_empty() {
                wrong.push(format!("{id}: {loud:?} on\n{fires}\n{silent:?} on\n{quiet}"));
            }
            seen.insert(id);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        // These need a folder or a builder; their tests are below.
        seen.extend(["KL014", "KL015", "KL019"]);
        let all: BTreeSet<&str> = rules().iter().map(|rule| rule.id).collect();
        assert_eq!(seen, all);
        let names: BTreeSet<&str> = rules().iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(rules().is_sorted_by_key(|rule| rule.id));
    }

    #[test]
    fn files_are_looked_for_in_the_context() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        let input = in_folder(folder.path());
        let text = "FROM x:1\nCOPY . /all\nCOPY src/ ./src /s/\nCOPY gone \\\n  src/*.c /g/\nCOPY no/*.c /n/\nCOPY --from=y:1 z /z\nCOPY <<E /e\nhi\nE\nCOPY $A /a";
        assert_eq!(lines("KL014", text, &input), [2]);
        assert_eq!(lines("KL019", text, &input), [4, 6]);
        assert_eq!(lines("KL019", text, &LintInput::default()), NONE);
        std::fs::File::create(folder.path().join(".dockerignore")).unwrap();
        assert_eq!(lines("KL014", text, &input), NONE);
        let files = LintContext::Files(vec!["src/a.c".to_owned(), "gone".to_owned()]);
        let input = LintInput { context: files, features: None };
        assert_eq!((lines("KL014", text, &input), lines("KL019", text, &input)), (vec![], vec![6]));
    }

    #[test]
    fn what_the_builder_does_not_support_is_an_error() {
        let text = "FROM x:1\nRUN --mount=type=secret,id=a,env=A y\nRUN <<E\nx\nE\nCOPY --link --chmod=1 a b\nRUN --network=none --security=insecure z";
        assert_eq!(lines("KL015", text, &with_features(LintFeatures::PORTABLE)), [2, 3, 6, 7, 7]);
        let everything = LintFeatures {
            secret_env: true,
            heredoc: true,
            copy_link: true,
            run_network: true,
            run_security: true,
            ..LintFeatures::PORTABLE
        };
        assert_eq!(lines("KL015", text, &with_features(everything)), NONE);
        assert_eq!(lines("KL016", text, &with_features(everything)), NONE);
        let classic = LintFeatures { mount: false, secret_mount: false, ..LintFeatures::PORTABLE };
        assert_eq!(lines("KL015", "FROM x:1\nRUN --mount=type=secret,id=a y", &with_features(classic)), [2]);
        let fetched = "# syntax=docker/dockerfile:1\nFROM x:1\nRUN <<E\nx\nE";
        assert_eq!(lines("KL015", fetched, &with_features(LintFeatures::PORTABLE)), [1]);
        assert_eq!(lines("KL016", fetched, &LintInput::default()), [1]);
        assert_eq!(lines("KL015", fetched, &with_features(LintFeatures { syntax: true, ..classic })), NONE);
    }

    #[test]
    fn suppressions_hold_where_they_stand() {
        let input = LintInput::default();
        let text = "# kiln: ignore=no-entrypoint the template says what starts\nFROM x\n# kiln: ignore=KL021,KL013 no other way\n# more\nRUN sudo a \\\n  && curl b | sh\nRUN sudo c\n# kiln: ignore=KL021 too far above\n\nRUN sudo d\nUSER app";
        assert_eq!(found(text, &input), [("KL003", 2), ("KL021", 7), ("KL022", 8), ("KL021", 10)]);
        let inside = "FROM x:1\nRUN a && \\\n # kiln: ignore=KL021 no other way\n sudo b";
        assert_eq!(lines("KL021", inside, &input), NONE);
        assert_eq!(lines("KL022", inside, &input), NONE);
    }

    #[test]
    fn findings_are_read_by_programs() {
        let file = Dockerfile::parse("FROM x:1\nUSER root\nENTRYPOINT [\"serve\"]").unwrap();
        let findings = lint(&file, &LintInput::default());
        insta::assert_json_snapshot!(findings, @r#"
        [
          {
            "id": "KL009",
            "name": "root-user",
            "severity": "warning",
            "line": 2,
            "message": "the image runs as root",
            "help": "End the last stage with `USER` and an account that is not root."
          }
        ]
        "#);
        assert_eq!(findings[0].severity, Severity::Warning);
        // A secret is not repeated.
        let token = ["glpat", &"a1B2".repeat(9)].join("-");
        let file = Dockerfile::parse(&format!("FROM x:1\nENV A={token}")).unwrap();
        assert!(lint(&file, &LintInput::default()).iter().all(|finding| !finding.message.contains(&token)));
    }

    #[test]
    fn large_files_are_read_in_time() {
        for (piece, count) in [
            ("FROM x\n", 1000),
            ("ENV a=$a b=\"c\\\n\"\n", 20_000),
            ("RUN a <<E\nE\n", 20_000),
            ("# kiln: ignore=KL021 x\nRUN sudo a\n", 5000),
            ("RUN --mount=type=cache \\\n", 20_000),
            ("COPY a b \\\n", 20_000),
            ("RUN <<E <<E <<E <<E\n", 1),
        ] {
            let text = format!("FROM y\n{}", piece.repeat(count));
            if let Ok(file) = Dockerfile::parse(&text) {
                drop((lint(&file, &LintInput::default()), file.canonical(), file.secret_ids()));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_script_is_linted(script in "[a-z '\"\\\\|&;#<>()${}\n=-]{0,60}", text in proptest::prelude::any::<String>()) {
            for run in [script, text] {
                for keyword in ["RUN", "CMD", "COPY", "USER", "RUN <<E\n", "ENV a="] {
                    if let Ok(file) = Dockerfile::parse(&format!("FROM x\n{keyword} {run}\nE\n")) {
                        drop(lint(&file, &LintInput::default()));
                    }
                }
            }
        }
    }
}
