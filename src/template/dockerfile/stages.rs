//! Stages, the images that they come from, the final user.

use std::collections::{BTreeMap, BTreeSet};

use super::instruction::{nearest, shown};
use super::words::expand;
use super::{Dockerfile, DockerfileError, Instruction, Keyword, Stage};

/// 1000: far more than anybody writes; looking up names takes long beyond.
const MAX_STAGES: usize = 1000;

/// 1 MiB: the values of all variables together.
const MAX_VARIABLES_BYTES: usize = 1024 * 1024;

/// Cuts `instructions` into stages.
pub(super) fn stages_of(instructions: &[Instruction]) -> Result<Vec<Stage>, DockerfileError> {
    let mut stages: Vec<Stage> = Vec::new();
    for (index, instruction) in instructions.iter().enumerate() {
        if instruction.keyword == Keyword::From && stages.len() == MAX_STAGES {
            let message = format!("there are more than {MAX_STAGES} stages");
            return Err(DockerfileError::new(instruction.line, message));
        }
        match (instruction.keyword, stages.last_mut()) {
            (Keyword::From, _) => {
                let mut words = instruction.arguments.items().iter();
                let base = words.next().cloned().unwrap_or_default();
                let name = words.nth(1).map(|name| stage_name(name, instruction.line)).transpose()?;
                let platform = instruction.flag("platform").and_then(|flag| flag.value.clone());
                stages.push(Stage {
                    line: instruction.line,
                    base,
                    name,
                    platform,
                    instructions: index..index + 1,
                });
            }
            (_, Some(stage)) => stage.instructions.end = index + 1,
            (Keyword::Arg, None) => {}
            (keyword, None) => {
                let message = format!("`{keyword}` stands before the first `FROM`; only `ARG` may");
                return Err(DockerfileError::new(instruction.line, message));
            }
        }
    }
    if stages.is_empty() {
        let line = instructions.last().map_or(1, |last| last.end_line);
        return Err(DockerfileError::new(line, "there is no `FROM`"));
    }
    Ok(stages)
}

fn stage_name(name: &str, line: u32) -> Result<String, DockerfileError> {
    let lower = name.to_lowercase();
    let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if valid && lower != "scratch" {
        return Ok(lower);
    }
    Err(DockerfileError::new(line, format!("`{}` cannot be the name of a stage", shown(name))))
}

/// What a stage takes from elsewhere: another stage, or an image outside.
enum Origin {
    Stage(usize),
    Image(String),
    Nothing,
}

impl Dockerfile {
    /// Returns the images from outside that a build of `target`, or else of the last stage, takes: each once, in the
    /// order of their lines, and the one that the built stage comes from last.
    ///
    /// Images of stages that the built one does not need are left out. Names of stages and `scratch` are no images.
    ///
    /// # Errors
    ///
    /// A target that is not there; a name that is empty or does not expand.
    pub fn base_images(
        &self,
        build_args: &BTreeMap<String, String>,
        target: Option<&str>,
    ) -> Result<Vec<String>, DockerfileError> {
        let variables = self.global_variables(build_args)?;
        let built = self.built_stage(target)?;
        let (mut needed, mut waiting) = (BTreeSet::new(), vec![built]);
        let mut found: Vec<(u32, String)> = Vec::new();
        let mut base = None;
        // The chain of bases of the built stage ends at the image that comes last.
        let mut chain = Some(built);
        while let Some(index) = waiting.pop() {
            if !needed.insert(index) {
                continue;
            }
            let Some(stage) = self.stages.get(index) else { continue };
            for (line, origin) in self.origins(index, stage, &variables)? {
                match origin {
                    Origin::Stage(other) => waiting.push(other),
                    Origin::Image(image) => found.push((line, image)),
                    Origin::Nothing => {}
                }
            }
        }
        while let Some(index) = chain.take() {
            let Some(stage) = self.stages.get(index) else { break };
            match self.base_of(index, stage, &variables)? {
                Origin::Stage(other) => chain = Some(other),
                Origin::Image(image) => base = Some(image),
                Origin::Nothing => {}
            }
        }
        found.sort_by_key(|(line, _)| *line);
        let mut images: Vec<String> = Vec::new();
        for (_, image) in found {
            if !images.contains(&image) && base.as_ref() != Some(&image) {
                images.push(image);
            }
        }
        images.extend(base);
        Ok(images)
    }

    /// Returns the ids of the secrets that `RUN --mount=type=secret` takes, each once, in order.
    #[must_use]
    pub fn secret_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for instruction in self.instructions.iter().filter(|instruction| instruction.keyword == Keyword::Run)
        {
            for mount in instruction.mounts() {
                if let Some(id) = mount.secret_id().filter(|id| !ids.iter().any(|known| known == id)) {
                    ids.push(id.to_owned());
                }
            }
        }
        ids
    }

    /// Returns the user that the last stage ends with, as written; its base stages count.
    #[must_use]
    pub fn final_user(&self) -> Option<&str> {
        let last = self.chain_of_last_stage().find_map(|instruction| {
            (instruction.keyword == Keyword::User).then_some(instruction.text.as_str())
        });
        last.filter(|user| !user.is_empty())
    }

    /// Returns the instructions that shape the last stage, last one first: its own and those of its base stages.
    pub(in crate::template) fn chain_of_last_stage(&self) -> impl Iterator<Item = &Instruction> {
        let mut chain = Vec::new();
        let mut next = self.stages.len().checked_sub(1);
        while let Some((index, stage)) = next.and_then(|index| Some((index, self.stages.get(index)?))) {
            chain.push(stage);
            next = self.stage_named(&stage.base, index);
        }
        chain.into_iter().flat_map(|stage| self.instructions_of(stage).iter().rev())
    }

    /// Returns the last stage before `before` that is called `name`.
    pub(in crate::template) fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let name = name.to_lowercase();
        self.stages.iter().take(before).rposition(|stage| stage.name.as_ref() == Some(&name))
    }

    fn built_stage(&self, target: Option<&str>) -> Result<usize, DockerfileError> {
        let last = self.stages.len().saturating_sub(1);
        let Some(target) = target else { return Ok(last) };
        let numbered = || target.parse().ok().filter(|index| *index <= last);
        self.stage_named(target, self.stages.len()).or_else(numbered).ok_or_else(|| {
            let names = self.stages.iter().filter_map(|stage| stage.name.as_deref());
            let hint = nearest(&target.to_lowercase(), names)
                .map(|nearest| format!("; did you mean `{nearest}`?"))
                .unwrap_or_default();
            let line = self.stages.get(last).map_or(1, |stage| stage.line);
            DockerfileError::new(line, format!("no stage up to here is called `{}`{hint}", shown(target)))
        })
    }

    /// Returns the variables that a `FROM` sees: platform names and the `ARG`s before the first `FROM`.
    pub(in crate::template) fn global_variables(
        &self,
        build_args: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, DockerfileError> {
        let mut variables = platform_variables();
        for name in variables.clone().into_keys() {
            if let Some(given) = build_args.get(&name) {
                variables.insert(name, given.clone());
            }
        }
        let mut total = 0;
        let before = self.instructions.iter().take_while(|instruction| instruction.keyword != Keyword::From);
        for pair in before.flat_map(|instruction| instruction.arguments.pairs()) {
            let value = match (build_args.get(&pair.name), &pair.raw) {
                (Some(given), _) => given.clone(),
                (None, Some(raw)) => expand(raw, &variables, self.escape)
                    .map_err(|message| DockerfileError::new(pair.line, message))?,
                (None, None) => continue,
            };
            total += value.len();
            if total > MAX_VARIABLES_BYTES {
                return Err(DockerfileError::new(pair.line, "variables expand to far too much text"));
            }
            variables.insert(pair.name.clone(), value);
        }
        Ok(variables)
    }

    /// Returns the image from outside that `stage` comes from, where its name expands to one.
    pub(in crate::template) fn base_image_of(
        &self,
        index: usize,
        stage: &Stage,
        variables: &BTreeMap<String, String>,
    ) -> Option<String> {
        match self.base_of(index, stage, variables).ok()? {
            Origin::Image(image) => Some(image),
            Origin::Stage(_) | Origin::Nothing => None,
        }
    }

    fn base_of(
        &self,
        index: usize,
        stage: &Stage,
        variables: &BTreeMap<String, String>,
    ) -> Result<Origin, DockerfileError> {
        let name = self.expanded(&stage.base, variables, stage.line)?;
        if name.eq_ignore_ascii_case("scratch") {
            return Ok(Origin::Nothing);
        }
        Ok(self.stage_named(&name, index).map_or(Origin::Image(name), Origin::Stage))
    }

    fn expanded(
        &self,
        word: &str,
        variables: &BTreeMap<String, String>,
        line: u32,
    ) -> Result<String, DockerfileError> {
        let name =
            expand(word, variables, self.escape).map_err(|message| DockerfileError::new(line, message))?;
        if name.trim().is_empty() {
            let message = format!("`{}` is empty once variables are replaced", shown(word));
            return Err(DockerfileError::new(line, message));
        }
        Ok(name)
    }

    /// Returns all that the stage at `index` takes from elsewhere, with lines.
    fn origins(
        &self,
        index: usize,
        stage: &Stage,
        variables: &BTreeMap<String, String>,
    ) -> Result<Vec<(u32, Origin)>, DockerfileError> {
        let mut origins = vec![(stage.line, self.base_of(index, stage, variables)?)];
        for instruction in self.instructions_of(stage) {
            let copied = instruction.flag("from").and_then(|flag| Some((flag.line, flag.value.clone()?)));
            let mounted = instruction
                .mounts()
                .filter_map(|mount| Some((mount.line, mount.option(&["from"])?.to_owned())));
            for (line, from) in copied.into_iter().chain(mounted) {
                let name = self.expanded(&from, variables, line)?;
                let numbered = || name.parse::<usize>().ok().filter(|number| *number < index);
                let origin = match self.stage_named(&name, index).or_else(numbered) {
                    Some(other) => Origin::Stage(other),
                    None if name.eq_ignore_ascii_case("scratch") => Origin::Nothing,
                    None => Origin::Image(name),
                };
                origins.push((line, origin));
            }
        }
        Ok(origins)
    }
}

/// Returns the variables that a builder sets by itself, for the platform that this program runs on.
fn platform_variables() -> BTreeMap<String, String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut variables = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        variables.insert(format!("{side}PLATFORM"), format!("linux/{architecture}"));
        variables.insert(format!("{side}OS"), "linux".to_owned());
        variables.insert(format!("{side}ARCH"), architecture.to_owned());
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(
        text: &str,
        args: &[(&str, &str)],
        target: Option<&str>,
    ) -> Result<Vec<String>, DockerfileError> {
        let args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Dockerfile::parse(text).unwrap().base_images(&args, target)
    }

    #[test]
    fn base_images_are_those_from_outside_with_the_built_base_last() {
        let text = "ARG V=12\nFROM debian:${V} AS base\nFROM golang:1 AS go\nFROM unused:1 AS unused\nFROM base AS final\nCOPY --from=go /a /a\nCOPY --from=1 /b /b\nCOPY --from=busybox:1 /c /c\nRUN --mount=type=bind,from=tools:2,target=/t x\nFROM scratch AS empty\nCOPY --from=Final / /\n";
        assert_eq!(
            images(text, &[], Some("final")).unwrap(),
            ["golang:1", "busybox:1", "tools:2", "debian:12"]
        );
        assert_eq!(images(text, &[("V", "11")], Some("base")).unwrap(), ["debian:11"]);
        assert_eq!(images(text, &[("OTHER", "11")], Some("0")).unwrap(), ["debian:12"]);
        assert_eq!(images(text, &[], None).unwrap(), ["debian:12", "golang:1", "busybox:1", "tools:2"]);
        let error = images(text, &[], Some("fianl")).unwrap_err();
        assert!(error.message.contains("did you mean `final`?"), "{error}");
    }

    #[test]
    fn a_base_without_a_name_is_a_mistake_in_its_line() {
        assert_eq!(images("ARG X\nFROM $X", &[], None).unwrap_err().line, 2);
        assert_eq!(images("ARG X\nFROM $X", &[("X", "a")], None).unwrap(), ["a"]);
        // An undeclared build argument is not seen.
        assert!(images("FROM $X", &[("X", "a")], None).is_err());
        assert_eq!(images("ARG X=${Y:?say}\nFROM a", &[], None).unwrap_err().line, 1);
        assert_eq!(images("FROM a AS a\nFROM a", &[], None).unwrap(), ["a"]);
    }

    #[test]
    fn the_final_user_is_inherited() {
        for (text, user) in [
            ("FROM x\nUSER a\nUSER b:c", Some("b:c")),
            ("FROM x AS y\nUSER a\nFROM y\nRUN z", Some("a")),
            ("FROM x AS y\nUSER a\nFROM z", None),
        ] {
            assert_eq!(Dockerfile::parse(text).unwrap().final_user(), user, "{text}");
        }
    }
}
