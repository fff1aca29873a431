//! The instructions that an expression becomes. They work on a current value, a stack beneath it,
//! the variables of the running function, and a list of places to come back to (forks).

use super::natives::Native;
use super::value::Val;

/// For `up`: a function of the library, which sees nothing around it.
pub(crate) const NOBODY: u32 = u32::MAX;

/// Where a variable stands: so many functions outwards, in this slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub up: u32,
    pub slot: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// The current value becomes this.
    Const(Val),
    /// The current value is put onto the stack, and stays.
    Push,
    /// Null is put onto the stack.
    PushNull,
    /// This is put onto the stack.
    PushConst(Val),
    /// The current value is dropped for the top of the stack.
    Pop,
    /// Keeps the input for later; paths do not follow what comes until `SubEnd`.
    SubBegin,
    /// Puts the result onto the stack; the input is current again.
    SubEnd,
    Load(At),
    /// As `Load`, and leaves null there: so that nobody else holds it.
    Take(u32),
    /// The current value goes into the variable; the top of the stack is current.
    Store(u32),
    /// The current value goes into the variable; null is current.
    StoreOnly(u32),
    /// A copy of the current value goes into the variable.
    Copy(u32),
    /// The top of the stack goes into the variable.
    StoreTop(u32),
    /// The variable becomes an empty array.
    NewArray(u32),
    /// The current value is the new last item of the variable.
    Append(u32),
    /// The current value is indexed by the top of the stack.
    Index {
        is_optional: bool,
    },
    /// The current value is indexed by this.
    IndexBy {
        key: Val,
        is_optional: bool,
    },
    /// A value and a name from the stack go into the object beneath them.
    Insert,
    Each {
        is_optional: bool,
    },
    /// Comes back to this place when what follows is exhausted.
    Fork(usize),
    Jump(usize),
    /// Jumps when the current value, which stays, is null or false.
    JumpFalse(usize),
    Backtrack,
    /// An error in what follows goes on at the handler; the variable notes the place.
    TryBegin {
        slot: u32,
        handler: usize,
    },
    TryEnd(u32),
    Label(u32),
    Break(At),
    /// Notes how many places there are to come back to.
    Mark(u32),
    /// Forgets all places since the mark.
    Cut(u32),
    PathBegin(u32),
    PathEnd(u32),
    /// The current value becomes what stands at a path of a variable.
    GetAt {
        of: u32,
        path: u32,
    },
    /// The current value is put at a path of a variable.
    PutAt {
        of: u32,
        path: u32,
    },
    /// As `PutAt`, with the value of another variable.
    PutCopyAt {
        of: u32,
        path: u32,
        value: u32,
    },
    /// The paths in the variable are deleted from the current value.
    DeletePaths(u32),
    GetPath,
    /// From, to and by are on the stack.
    Range,
    Native(&'static Native),
    Call {
        function: usize,
        up: u32,
        arguments: Box<[Argument]>,
        is_tail: bool,
    },
    CallArgument {
        at: At,
        is_tail: bool,
    },
    Return,
    /// The current value is an output.
    Output,
}

/// What a call hands on: never a value, always what makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    /// Code of the calling function.
    Code(usize),
    /// An argument that the caller got itself.
    Passed(At),
}

/// A function: a definition, an argument, or the expression itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function {
    pub ops: Vec<Op>,
    pub slots: u32,
}

/// A compiled expression; the first function is the expression.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    pub functions: Vec<Function>,
}
