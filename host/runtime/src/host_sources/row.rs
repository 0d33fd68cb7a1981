//! Records of tables that the host makes: the schema is built field by field, and rows are written in the same order.

use ig_event::{DataSource, Derive, FieldDef, FieldId, Kind, SourceKind, Storage};

/// A schema under construction.
pub(super) struct Shape(DataSource);

/// How a field is shown that is declared next.
#[derive(Clone, Copy, Default)]
pub(super) struct Look<'a> {
    pub(super) annotations: &'a [(&'a str, &'a str)],
    pub(super) tag: Option<&'a str>,
}

pub(super) const HIDDEN: (&str, &str) = ("columns.hidden", "true");

impl Shape {
    pub(super) fn new(name: &str) -> Self {
        Shape(DataSource::new(name, SourceKind::Snapshot, 0))
    }

    /// A number. `None` only for a name that is taken, which a test would show: the record would not fit the schema.
    pub(super) fn number(&mut self, name: &str, kind: Kind, description: &str, look: Look<'_>) -> Option<FieldId> {
        self.field(name, kind, kind.size().unwrap_or(0), description, look)
    }

    /// Text of at most `size` bytes.
    pub(super) fn text(&mut self, name: &str, size: u32, description: &str, look: Look<'_>) {
        self.field(name, Kind::CString, size, description, look);
    }

    /// `name_raw`, a 64-bit number, and `name`, what people read.
    pub(super) fn pair(&mut self, name: &str, how: Derive, description: &str, look: Look<'_>) {
        let raw = Look { annotations: &[HIDDEN], tag: None };
        if let Some(from) = self.number(&format!("{name}_raw"), Kind::U64, description, raw) {
            self.derived(name, from, how, description, look);
        }
    }

    pub(super) fn derived(&mut self, name: &str, from: FieldId, how: Derive, description: &str, look: Look<'_>) {
        let def = FieldDef::new(name, Kind::Text, Storage::Derived { from, how });
        self.0.add(decorated(def, description, look));
    }

    pub(super) fn done(self) -> DataSource {
        self.0
    }

    fn field(&mut self, name: &str, kind: Kind, size: u32, description: &str, look: Look<'_>) -> Option<FieldId> {
        let def = FieldDef::new(name, kind, Storage::Record { offset: self.0.record_size, size });
        self.0.record_size += size;
        self.0.add(decorated(def, description, look))
    }
}

fn decorated(mut def: FieldDef, description: &str, look: Look<'_>) -> FieldDef {
    let name = format!("name:{}", def.name);
    def = def.annotate("description", description).tag(name);
    for (key, value) in look.annotations {
        def = def.annotate(*key, *value);
    }
    match look.tag {
        Some(tag) => def.tag(format!("type:{tag}")),
        None => def,
    }
}

/// One row, field by field in the order of the schema.
#[derive(Default)]
pub(super) struct Row(Vec<u8>);

impl Row {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn u8(&mut self, n: u8) -> &mut Self {
        self.0.push(n);
        self
    }

    pub(super) fn u32(&mut self, n: u32) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(super) fn i32(&mut self, n: i32) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, n: u64) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(super) fn f64(&mut self, n: f64) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    /// Text in `size` bytes; what is longer is cut, and true comes back.
    pub(super) fn text(&mut self, text: &[u8], size: usize) -> bool {
        let shown = &text[..text.len().min(size)];
        self.0.extend_from_slice(shown);
        self.0.resize(self.0.len() + size - shown.len(), 0);
        shown.len() < text.len()
    }
}
