//! What a builder must support.

use serde::Serialize;

use super::{Dockerfile, Flag, Instruction, Keyword};

/// What a Dockerfile needs beyond what every builder has: each with the first line that needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// `RUN --mount`.
    pub mount: Option<u32>,
    /// `RUN --mount=type=secret`.
    pub secret_mount: Option<u32>,
    /// `RUN --mount=type=secret,env=…`.
    pub secret_env: Option<u32>,
    /// A heredoc.
    pub heredoc: Option<u32>,
    /// `COPY --chmod` or `ADD --chmod`.
    pub copy_chmod: Option<u32>,
    /// `COPY --link` or `ADD --link`.
    pub copy_link: Option<u32>,
    /// `RUN --network`.
    pub run_network: Option<u32>,
    /// `RUN --security`.
    pub run_security: Option<u32>,
    /// `# syntax=`: its line and the frontend that it names.
    pub syntax: Option<(u32, String)>,
}

impl Dockerfile {
    /// Returns what a builder must support; what an `ONBUILD` holds counts.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        let syntax = self.directives.iter().find(|directive| directive.name == "syntax");
        needs.syntax = syntax.map(|directive| (directive.line, directive.value.clone()));
        for instruction in &self.instructions {
            needs.add(instruction.trigger.as_deref().unwrap_or(instruction));
        }
        needs
    }
}

impl Needs {
    fn add(&mut self, instruction: &Instruction) {
        if !instruction.heredocs.is_empty() {
            self.heredoc.get_or_insert(instruction.line);
        }
        match instruction.keyword {
            Keyword::Run => {
                for mount in instruction.mounts() {
                    self.mount.get_or_insert(mount.line);
                    if mount.kind == "secret" {
                        self.secret_mount.get_or_insert(mount.line);
                        if mount.option(&["env"]).is_some() {
                            self.secret_env.get_or_insert(mount.line);
                        }
                    }
                }
                note(&mut self.run_network, instruction.flag("network"));
                note(&mut self.run_security, instruction.flag("security"));
            }
            Keyword::Copy | Keyword::Add => {
                note(&mut self.copy_chmod, instruction.flag("chmod"));
                note(&mut self.copy_link, instruction.flag("link").filter(|flag| flag.is_on()));
            }
            Keyword::Arg
            | Keyword::Cmd
            | Keyword::Entrypoint
            | Keyword::Env
            | Keyword::Expose
            | Keyword::From
            | Keyword::Healthcheck
            | Keyword::Label
            | Keyword::Maintainer
            | Keyword::Onbuild
            | Keyword::Shell
            | Keyword::Stopsignal
            | Keyword::User
            | Keyword::Volume
            | Keyword::Workdir => {}
        }
    }
}

fn note(need: &mut Option<u32>, flag: Option<&Flag>) {
    if let Some(flag) = flag {
        need.get_or_insert(flag.line);
    }
}
