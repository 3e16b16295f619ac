//! `docker context create`, `update`, `use`, `rm`.

use client::config;
use client::contexts::{Context, check_name};

use super::{DEFAULT, DEFAULT_DESCRIPTION, endpoint, load, store};
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output;

/// `docker context create`: from `--docker`, or a copy of `--from` or of the context in force.
pub(crate) async fn create(app: &App, flags: &Parsed) -> Outcome {
    let name = &flags.args[0];
    check_new_name(app, name)?;
    let description = flags.text("description");
    let from = flags.text("from");
    if !from.is_empty() && flags.changed("docker") {
        return Err(Failure::new("cannot use --docker flag when --from is set"));
    }
    if flags.changed("docker") {
        let (docker, material) = endpoint::parse(app, &flags.map("docker"))?;
        let mut context = Context { name: name.clone(), ..Context::default() };
        context.set_description(description);
        context.set_docker(&docker);
        let tls =
            if material.is_empty() { [].into() } else { [("docker".to_owned(), material)].into() };
        store(app).create(&context, &tls)?;
    } else {
        let from = if from.is_empty() { app.context_name() } else { from.to_owned() };
        let (mut context, tls) = load(app, &from)?;
        if from == DEFAULT {
            context.set_description(DEFAULT_DESCRIPTION);
        }
        if !description.is_empty() {
            context.set_description(description);
        }
        context.name.clone_from(name);
        store(app).create(&context, &tls)?;
    }
    done(name, &format!("Successfully created context {name:?}"))
}

/// Prints the name for scripts and the sentence for people.
pub(super) fn done(name: &str, sentence: &str) -> Outcome {
    output::print_line(name)?;
    output::complain(sentence);
    Ok(0)
}

pub(super) fn check_new_name(app: &App, name: &str) -> Outcome<()> {
    check_name(name)?;
    if store(app).exists(name) {
        return Err(Failure::new(format!("context {name:?} already exists")));
    }
    Ok(())
}

/// `docker context update`: only what is given changes; a new endpoint replaces its TLS files.
pub(crate) async fn update(app: &App, flags: &Parsed) -> Outcome {
    let name = &flags.args[0];
    check_name(name)?;
    let store = store(app);
    let mut context = store.load(name)?;
    let description = flags.text("description");
    if !description.is_empty() {
        context.set_description(description);
    }
    if flags.changed("docker") {
        let (docker, material) = endpoint::parse(app, &flags.map("docker"))?;
        context.set_docker(&docker);
        store.replace_docker(&context, &material)?;
    } else {
        store.save(&context)?;
    }
    done(name, &format!("Successfully updated context {name:?}"))
}

/// `docker context use`.
pub(crate) async fn use_context(app: &App, flags: &Parsed) -> Outcome {
    let name = &flags.args[0];
    if name != DEFAULT {
        check_name(name)?;
        store(app).load(name)?;
    }
    let wanted = if name == DEFAULT { "" } else { name };
    if app.config.current_context != wanted {
        set_current(app, wanted)?;
    }
    done(name, &format!("Current context is now {name:?}"))?;
    if name != DEFAULT && app.environment.docker_host.is_some() {
        output::complain(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use \
             {name:?}, either set the global --context flag, or unset DOCKER_HOST environment \
             variable."
        ));
    }
    Ok(0)
}

fn set_current(app: &App, name: &str) -> Outcome<()> {
    let directory = app.environment.config_dir();
    Ok(config::edit(&directory, |file| config::set_current_context(file, name))?)
}

/// `docker context rm`: the context in force goes only by force, and then `default` is in force.
pub(crate) async fn rm(app: &App, flags: &Parsed) -> Outcome {
    let current = app.context_name();
    let mut failures = Vec::new();
    for name in &flags.args {
        match remove(app, name, *name == current, flags.bool("force")) {
            Ok(()) => output::print_line(name)?,
            Err(failure) => failures.push(failure),
        }
    }
    Failure::all(&failures)
}

fn remove(app: &App, name: &str, is_current: bool, force: bool) -> Outcome<()> {
    let store = store(app);
    if name == DEFAULT {
        return Err(Failure::new("context \"default\" cannot be removed"));
    }
    if is_current && !force {
        return Err(Failure::new(format!(
            "context {name:?} is in use, set -f flag to force remove"
        )));
    }
    if !force && !store.exists(name) {
        return Err(Failure::new(format!("context {name:?} does not exist")));
    }
    if is_current {
        set_current(app, "")?;
    }
    Ok(store.remove(name)?)
}
