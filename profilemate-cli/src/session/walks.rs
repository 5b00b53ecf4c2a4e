//! The walks of one process's stacks: nothing in it is written, stopped or mapped.

use std::time::Instant;

use super::attachment::{self, Context};
use super::imports::Imports;
use super::look::{self, Runtime};
use super::options::Options;
use super::tracked::Tracked;
use super::trouble::Trouble;
use crate::attach::{Kernel, PAGES};
use crate::catalog::{self, Catalog, Frame};
use crate::cli::Exit;
use crate::cli::args::Touch;
use crate::event::{self, NO_SLOT, Note};
use crate::plan::{FramePlan, MethodState, Technique};
use crate::target::python::{
    Compiled, Compiler, Function, Interned, ProcessMemory, ResolveError, Resolver, StackError,
    assemble, find_stack,
};
use crate::target::role::Role;
use crate::touch::Resident;

/// Walks of the stacks of one process.
pub(super) struct Walks {
    pid: u32,
    number: u16,
    /// Functions that are still to be found: their modules are not imported, or not to the end.
    missing: Vec<Frame>,
    imports: Imports,
    /// Code objects that are looked for.
    targets: Vec<u64>,
}

impl Walks {
    /// Has the stacks of a process walked. Nothing is looked for in them yet.
    pub(super) fn begin(
        pid: u32,
        runtime: &Runtime,
        number: u16,
        frames: Vec<Frame>,
        kernel: &mut Kernel,
    ) -> Result<Self, Trouble> {
        let mut stack = find_stack(&runtime.memory, &runtime.layout, runtime.has_musl())?;
        stack.number = u32::from(number);
        kernel.set_layout(u32::from(number), &runtime.layout.kernel)?;
        kernel.set_stack(pid, &stack)?;
        Ok(Self {
            pid,
            number,
            missing: frames,
            imports: Imports::default(),
            targets: Vec::new(),
        })
    }

    /// Functions that are still to be found.
    pub(super) fn missing(&self) -> &[Frame] {
        &self.missing
    }

    /// Looks for the functions that were not there yet, and has their frames told. What was found, for the plan.
    pub(super) fn bind(
        &mut self,
        runtime: &Runtime,
        context: &mut Context<'_>,
    ) -> Result<Vec<FramePlan>, Trouble> {
        let resolver = Resolver::new(&runtime.memory, &runtime.layout);
        let interned = Interned::new(&resolver);
        let mut plans = Vec::new();
        let now = Instant::now();
        for frame in std::mem::take(&mut self.missing) {
            let looked = look(&frame, &resolver, &interned);
            match looked.plan.state {
                MethodState::Ready => {}
                MethodState::NotImported => self.missing.push(frame.clone()),
                MethodState::Unbound(_) => {
                    if self.imports.may_define(&frame.module, now) {
                        self.missing.push(frame.clone());
                    }
                }
            }
            let unread = unread(&frame, &looked.plan);
            plans.push(looked.plan);
            let Some(function) = looked.function else {
                continue;
            };
            // Two names of one function: its frames are told once.
            if !self.targets.contains(&function.innermost) {
                self.describe(&frame, &function, looked.fields, unread, runtime, context)?;
            }
        }
        Ok(plans)
    }

    /// Says in the stream what a frame's records hold, and has them made.
    fn describe(
        &mut self,
        frame: &Frame,
        function: &Function,
        fields: Vec<(event::Field, Compiled)>,
        unread: Vec<event::Unread>,
        runtime: &Runtime,
        context: &mut Context<'_>,
    ) -> Result<(), Trouble> {
        *context.next_program += 1;
        let id = *context.next_program;
        let (fields, compiled): (Vec<event::Field>, Vec<Compiled>) = fields.into_iter().unzip();
        let program = assemble(id, u32::from(self.number), &compiled)
            .map_err(|error| Trouble::lasting(Exit::Failed, format!("{}: {error}", frame.id)))?;
        context.notes.send(Note::Program(event::Program {
            id,
            page: self.number,
            slot: NO_SLOT,
            none: runtime.layout.kernel.none,
            true_: runtime.layout.kernel.true_,
            false_: runtime.layout.kernel.false_,
            fields,
            unread,
        }));
        context.notes.send(Note::Walk(event::Walk {
            pid: self.pid,
            program: id,
            id: frame.id.clone(),
            module: frame.module.clone(),
            qualname: frame.qualname.clone(),
        }));
        context
            .kernel
            .set_target(self.pid, function.innermost, &program, frame.last)?;
        self.targets.push(function.innermost);
        Ok(())
    }

    /// Ends the walks.
    pub(super) fn end(&self, kernel: &mut Kernel) {
        kernel.clear_stack(self.pid);
    }
}

/// What looking for a function found.
struct Looked {
    plan: FramePlan,
    function: Option<Function>,
    fields: Vec<(event::Field, Compiled)>,
}

/// Whether the stacks of a process are walked: where nothing may be written into it, and where nothing can be (CPython
/// 3.11 without a helper) but it calls driver functions that walks can begin at (`calls`).
pub(super) fn wanted(tracked: &Tracked, runtime: &Runtime, touch: Touch, calls: bool) -> bool {
    let pid = tracked.seen.pid;
    touch == Touch::None
        || tracked.walks.is_some()
        || (touch == Touch::Probes
            && calls
            && tracked.attachment.is_none()
            && !runtime.layout.honours_vectorcall()
            && attachment::stand_ins(pid).is_none()
            && matches!(Resident::find(pid), Ok(None)))
}

/// Has the stacks of a process walked, or looks for what was not imported yet. Without a `context` for the plan only.
pub(super) fn follow(
    tracked: &mut Tracked,
    runtime: &Runtime,
    wish: impl Fn() -> Result<Vec<Frame>, Trouble>,
    context: Option<Context<'_>>,
    next_page: &mut u16,
) -> Result<(), Trouble> {
    tracked.plan.technique = Technique::StackWalks;
    let Some(mut context) = context else {
        tracked.plan.frames = plans(runtime, &wish()?);
        return Ok(());
    };
    let walks = match &mut tracked.walks {
        Some(walks) => walks,
        none => {
            let frames = wish()?;
            if !any_imported(runtime, &frames) {
                return Err(Trouble::passing(
                    Exit::NoTarget,
                    "none of the functions is imported whose frames are looked for",
                ));
            }
            if *next_page >= PAGES {
                return Err(Trouble::lasting(
                    Exit::Failed,
                    format!("more than {PAGES} processes are attached"),
                ));
            }
            // Opened anew: an interpreter that was only starting has types now that it had not then.
            let pid = tracked.seen.pid;
            let opened = Runtime::open(pid)?;
            let begun = Walks::begin(pid, &opened, *next_page, frames, context.kernel)?;
            *next_page += 1;
            none.insert(begun)
        }
    };
    if walks.missing().is_empty() || !any_imported(runtime, walks.missing()) {
        return Ok(());
    }
    let plans = walks.bind(runtime, &mut context)?;
    let ready = plans.iter().filter(|plan| plan.state == MethodState::Ready);
    let ready = ready.count();
    if ready > 0 {
        log::info!(
            "process {}: its stacks are walked for frames of {ready} functions",
            tracked.seen.pid
        );
    }
    tracked.plan.take_frames(plans);
    tracked.note(context.notes);
    Ok(())
}

/// Ends the walks of a process, if its stacks are walked.
pub(super) fn end(tracked: &mut Tracked, kernel: Option<&mut Kernel>) {
    if let (Some(walks), Some(kernel)) = (tracked.walks.take(), kernel) {
        walks.end(kernel);
    }
}

/// The frames to look for in a process.
pub(super) fn wish(
    catalog: &Catalog,
    options: &Options,
    role: Role,
    runtime: &Runtime,
) -> Result<Vec<Frame>, Trouble> {
    if role == Role::ApiServer {
        return Err(Trouble::passing(
            Exit::NoTarget,
            "it is the API server: its engine runs in another process",
        ));
    }
    let vllm = look::imported_version(runtime)
        .ok_or_else(|| Trouble::passing(Exit::NoTarget, "vLLM is not imported"))?;
    Ok(catalog::frames(&look::taken(catalog, options, &vllm)?))
}

/// Whether the module of one of the functions is imported.
pub(super) fn any_imported(runtime: &Runtime, frames: &[Frame]) -> bool {
    let modules: Vec<&str> = frames.iter().map(|frame| frame.module.as_str()).collect();
    !Resolver::new(&runtime.memory, &runtime.layout)
        .imported(&modules)
        .is_empty()
}

/// Looks for `frames` in a process, for the plan only.
pub(super) fn plans(runtime: &Runtime, frames: &[Frame]) -> Vec<FramePlan> {
    let resolver = Resolver::new(&runtime.memory, &runtime.layout);
    let interned = Interned::new(&resolver);
    frames
        .iter()
        .map(|frame| look(frame, &resolver, &interned).plan)
        .collect()
}

/// Fields of a frame that nothing reads, without those that the process rightly lacks.
fn unread(frame: &Frame, plan: &FramePlan) -> Vec<event::Unread> {
    let fields = frame.fields.iter().zip(&plan.fields);
    let unread = fields.filter_map(|(field, (_, _, error))| {
        let reason = error.clone().filter(|_| !field.optional)?;
        Some(event::Unread {
            name: field.name.clone(),
            path: field.path.clone(),
            tables: frame.tables(),
            reason,
        })
    });
    unread.collect()
}

fn look(
    frame: &Frame,
    resolver: &Resolver<'_, ProcessMemory>,
    interned: &Interned<'_, '_, ProcessMemory>,
) -> Looked {
    let mut looked = Looked {
        plan: FramePlan {
            id: frame.id.clone(),
            module: frame.module.clone(),
            qualname: frame.qualname.clone(),
            state: MethodState::NotImported,
            fields: Vec::new(),
            reads: 0,
        },
        function: None,
        fields: Vec::new(),
    };
    let function = match resolver.resolve(&frame.module, &frame.qualname) {
        Ok(function) => function,
        Err(ResolveError::NotImported { .. }) => return looked,
        Err(error) => {
            looked.plan.state = MethodState::Unbound(error.to_string());
            return looked;
        }
    };
    let mut compiler = match Compiler::for_frame(interned, &function) {
        Ok(compiler) => compiler,
        Err(error) => {
            looked.plan.state = MethodState::Unbound(error.to_string());
            return looked;
        }
    };
    for (prefix, class) in &frame.classes {
        compiler = compiler.class_of(prefix, class);
    }
    let compile = || -> Vec<_> {
        let fields = frame.fields.iter();
        fields.map(|field| compiler.compile(&field.path)).collect()
    };
    let all = look::again(resolver, compile, Result::is_err);
    for (field, compiled) in frame.fields.iter().zip(all) {
        let error = compiled.as_ref().err().map(ToString::to_string);
        looked
            .plan
            .fields
            .push((field.name.clone(), field.path.clone(), error));
        if let Ok(compiled) = compiled {
            looked.plan.reads += compiled.ops.len() as u32;
            let told = event::Field {
                name: field.name.clone(),
                path: field.path.clone(),
                shape: compiled.shape,
            };
            looked.fields.push((told, compiled));
        }
    }
    looked.plan.state = MethodState::Ready;
    looked.function = Some(function);
    looked
}

impl From<StackError> for Trouble {
    fn from(error: StackError) -> Self {
        let hint = error.hint();
        let trouble = match error {
            StackError::NoThreads => Self::passing(Exit::Unsupported, error.to_string()),
            StackError::Architecture | StackError::NoSlot { .. } | StackError::Differs { .. } => {
                Self::lasting(Exit::Unsupported, error.to_string())
            }
        };
        trouble.hint(hint)
    }
}
