//! The Wasm half of a gadget, in Rust: a decoder sees the kernel's records batch by batch and answers with columns.
//!
//! A decoder is one type. [`Decoder::open`] runs once while the schema is open: it looks up the fields it reads and adds
//! those it provides. [`Decoder::decode`] then runs for every batch. [`export!`] makes it a guest.
//!
//! ```
//! use gadget_sdk::{Answer, BytesField, Decoder, Error, NumberField, Rows, Setup, TextColumn, text};
//!
//! struct Greeting {
//!     uid: NumberField<u32>,
//!     raw: BytesField,
//!     name: TextColumn,
//! }
//!
//! impl Decoder for Greeting {
//!     fn open(setup: &mut Setup) -> Result<Self, Error> {
//!         let source = setup.source("hello")?;
//!         Ok(Greeting {
//!             uid: source.number("uid")?,
//!             raw: source.bytes("name_raw")?,
//!             name: source.add_text("name")?,
//!         })
//!     }
//!
//!     fn decode(&mut self, rows: &Rows, out: &mut Answer) -> Result<(), Error> {
//!         for row in rows {
//!             if row.number(self.uid) == 65534 {
//!                 out.drop_row(row);
//!                 continue;
//!             }
//!             out.text(self.name).push(text::trim(row.bytes(self.raw)));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! gadget_sdk::export!(Greeting);
//!
//! // On the host the same type is tested without any Wasm.
//! use gadget_sdk::{Kind, testing::Fixture};
//! let mut t = Fixture::new("hello").field("uid", Kind::Uint32, 4).field("name_raw", Kind::CString, 8);
//! let answer = t.decode::<Greeting>(&[b"\x01\0\0\0 Eve  \0\0"]).unwrap();
//! assert_eq!(answer.text("name", 0), Some(&b"Eve"[..]));
//! ```
//!
//! What must not happen here: per-row allocation, and calls to the host inside `decode` other than [`log()`].

mod answer;
mod rows;
mod schema;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod text;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
pub mod host;

pub use answer::{Answer, BytesColumn, CodesColumn, Number, NumberColumn, TextColumn, TextWriter};
pub use rows::{BytesField, Iter, NumberField, Row, Rows};
pub use schema::{Error, ErrorCode, FieldDef, Kind, Setup, SourceId, SourceSetup};

#[doc(hidden)]
pub use schema::{FieldInfo, Host, SourceInfo};

/// What a gadget's Wasm does.
pub trait Decoder: Sized {
    /// Looks up the fields it reads and adds those it provides. Runs once before the first event, and again when the host
    /// has to restart the guest after a trap: it must then ask for the same again, and state is lost.
    ///
    /// An error ends the run before it begins.
    fn open(setup: &mut Setup) -> Result<Self, Error>;

    /// Answers one batch: each column that was added gets exactly one value for every row, in the order of the rows.
    ///
    /// With an error the whole batch is shown undecoded and counted; see [`Answer::reject`] for a single row. A gadget that
    /// asked for no source is never called.
    fn decode(&mut self, rows: &Rows, out: &mut Answer) -> Result<(), Error> {
        let _ = (rows, out);
        Err(Error::new(ErrorCode::Unsupported, "the gadget decodes no rows"))
    }

    /// The gadget's programs are loaded and about to run: from here on its maps can be opened.
    fn start(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Milliseconds between two calls of [`tick`](Self::tick); 0 for never. Asked once, after `start`.
    fn interval_ms(&self) -> u32 {
        0
    }

    /// Called every now and then. An error is told to the user, and the gadget goes on.
    fn tick(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// The last batch has been decoded, and the gadget's programs run no more. The place to publish what was gathered.
    fn stop(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Says something to the user through the host's log, which drops what comes too fast. On the host it does nothing.
#[cfg_attr(not(target_arch = "wasm32"), expect(unused_variables, reason = "only a guest has somebody to talk to"))]
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    guest::log(level, message);
}

/// Makes a [`Decoder`] the gadget's Wasm. Once per crate, which needs no `crate-type` of its own.
#[macro_export]
macro_rules! export {
    ($decoder:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static STATE: ::core::cell::RefCell<Option<$crate::guest::Running<$decoder>>> =
                    const { ::core::cell::RefCell::new(None) };
            }
            impl $crate::guest::Exported for $decoder {
                fn with<R>(f: impl FnOnce(&mut Option<$crate::guest::Running<$decoder>>) -> R) -> R {
                    STATE.with_borrow_mut(f)
                }
            }
            type Guest = $crate::guest::Adaptor<$decoder>;
    $crate::guest::bindings::export!(Guest with_types_in $crate::guest::bindings);
        };
    };
}
