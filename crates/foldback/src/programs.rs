//! From stored definitions to programs: documents by the OWS interpreter, Rust code by its name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldback_core::projection::Projection;
use foldback_core::{Hash, Program, Redaction};
use foldback_engine::{Programs, Start};
use foldback_store::Definition;
use serde_json::Value;

/// The programs this process can run. Documents need no registration: a workflow never needs its
/// file again.
#[derive(Default)]
pub struct Definitions {
    code: HashMap<Hash, Arc<dyn Program>>,
    /// Documents read so far: a thousand workflows of one definition share one program.
    documents: Mutex<HashMap<Hash, Arc<dyn Program>>>,
    /// What is redacted in every workflow of this process.
    redaction: Redaction,
}

/// The hash by which Rust code is pinned: what it is called and which version it says it is. A
/// change of the code is found by divergence, not by this hash.
pub fn code_hash(name: &str, version: &str) -> Hash {
    Hash::of_parts(&[b"rust", name.as_bytes(), version.as_bytes()])
}

/// The hash under which a definition is stored: of its canonical form; for Rust code of the name
/// and version that stand there.
pub fn definition_hash(definition: &Definition) -> Hash {
    let named = |canonical: &str| {
        let code: Value = serde_json::from_str(canonical).ok()?;
        Some(code_hash(code["rust"]["name"].as_str()?, code["rust"]["version"].as_str()?))
    };
    let code = if definition.kind == "rust" { named(&definition.canonical) } else { None };
    code.unwrap_or_else(|| Hash::of_bytes(definition.canonical.as_bytes()))
}

impl Definitions {
    /// Adds Rust code under a name and a version.
    pub fn with_code(mut self, name: &str, version: &str, program: impl Program + 'static) -> Definitions {
        self.code.insert(code_hash(name, version), Arc::new(program));
        self
    }

    /// Redacts by these rules in every workflow, beside what its own document says.
    pub fn with_redaction(mut self, rules: Redaction) -> Definitions {
        self.redaction = self.redaction.and(&rules);
        self
    }
}

impl Programs for Definitions {
    fn program(&self, definition: &Definition) -> Result<Arc<dyn Program>, String> {
        if let Some(program) = self.code.get(&definition.hash) {
            return Ok(program.clone());
        }
        if definition.kind != "ows" {
            return Err(format!(
                "`{}` is {} code that this process does not have",
                definition.name, definition.kind
            ));
        }
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = documents.get(&definition.hash) {
            return Ok(program.clone());
        }
        let program: Arc<dyn Program> =
            foldback_ows::from_canonical(&definition.canonical).map_err(|problems| {
                let first = problems.first().map(|p| p.message.clone()).unwrap_or_default();
                format!("`{}` is not understood by this build: {first}", definition.name)
            })?;
        documents.insert(definition.hash, program.clone());
        Ok(program)
    }

    fn projection(&self, source: &str) -> Result<Box<dyn Projection>, String> {
        let loaded = foldback_ows::load_projection(source)
            .map_err(|problems| problems.first().map_or_else(String::new, ToString::to_string))?;
        Ok(Box::new(loaded))
    }

    fn redaction(&self) -> Redaction {
        self.redaction.clone()
    }
}

/// The command that starts a document.
pub fn start_document(loaded: &foldback_ows::Loaded, workflow_id: &str, input: Value) -> Start {
    Start {
        workflow_id: Arc::from(workflow_id),
        definition: loaded.hash,
        kind: "ows".into(),
        name: loaded.name.clone(),
        canonical: loaded.canonical.clone(),
        source: loaded.source.clone(),
        file: None,
        input,
    }
}

/// The command that starts Rust code.
pub fn start_code(name: &str, version: &str, workflow_id: &str, input: Value) -> Start {
    Start {
        workflow_id: Arc::from(workflow_id),
        definition: code_hash(name, version),
        kind: "rust".into(),
        name: format!("{name} {version}"),
        canonical: serde_json::json!({"rust": {"name": name, "version": version}}).to_string(),
        source: String::new(),
        file: None,
        input,
    }
}
