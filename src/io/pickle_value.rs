//! What a pickle of a state dictionary may hold, and the only names it may ask for.

use super::quoted;
use super::tensor_file::Element;

/// Index of a value in the arena.
pub(super) type Id = usize;

/// A run of values in the archive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    pub element: Element,
    /// File name inside the archive's `data/` folder.
    pub key: String,
    /// Values it holds.
    pub count: usize,
}

/// A view of a storage; extents and strides in values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
}

/// A pickled value.
#[derive(Clone, Debug)]
pub(super) enum Node {
    None,
    Bool,
    Int(i64),
    Float,
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    View(View),
}

/// The names that a state dictionary of float tensors is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

impl Node {
    /// What the value is, for an error line.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float => "a float",
            Self::Text(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a global",
            Self::Storage(_) => "a storage",
            Self::View(_) => "a tensor",
        }
    }
}

/// The global a pickle asks for. Everything but the parts of a dictionary of float tensors is refused by name.
pub(super) fn global(module: &str, name: &str) -> Result<Global, String> {
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Ok(Global::RebuildParameter),
        ("torch", "FloatStorage") => Ok(Global::Storage(Element::F32)),
        ("torch", "HalfStorage") => Ok(Global::Storage(Element::F16)),
        ("torch", "BFloat16Storage") => Ok(Global::Storage(Element::Bf16)),
        _ => Err(format!(
            "the pickle asks for {}, which is refused: only float tensors in a dictionary are read",
            quoted(&format!("{module}.{name}"))
        )),
    }
}
