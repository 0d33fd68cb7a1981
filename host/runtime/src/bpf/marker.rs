//! What authors declare with the macros of gadget/macros.h, as the names of variables spell it.

/// What is wrong with a marker.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MarkerFault {
    #[error("needs {wanted} parts separated by ___, has {found}")]
    Parts { wanted: &'static str, found: usize },
    #[error("there is no map {0}")]
    NoMap(String),
    #[error("map {map} is a {kind}, wanted {wanted}")]
    MapKind { map: String, kind: &'static str, wanted: &'static str },
    #[error("there is no struct {0}")]
    NoStruct(String),
    #[error("there is no program {0}")]
    NoProgram(String),
    #[error("program {program} is in section {section}, wanted an iterator (iter/…)")]
    NotIterator { program: String, section: String },
    #[error("there is no read-only variable {0}")]
    NoVariable(String),
}

/// What an author declared with the macros of gadget/macros.h.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "marker", rename_all = "snake_case")]
pub enum Marker {
    /// Rows of `structure` arrive through `map`.
    Tracer {
        source: String,
        map: String,
        structure: String,
    },
    /// `map` carries events: the host may choose its size and type.
    MapTracer {
        map: String,
    },
    /// Rows of `structure` are what the iterator programs write.
    Iter {
        source: String,
        structure: String,
        programs: Vec<String>,
    },
    /// Rows are the entries of `map`.
    MapIter {
        source: String,
        map: String,
    },
    /// The iterator `program` walks `map`.
    MapElemTarget {
        program: String,
        map: String,
    },
    SocketTarget {
        program: String,
        map: String,
    },
    /// The read-only variable can be set by the user.
    Param {
        var: String,
    },
    /// A function that a packet filter replaces.
    PacketFilter {
        name: String,
    },
}

impl std::fmt::Display for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Marker::Tracer { source, map, structure } => write!(f, "gadget_tracer_{source}___{map}___{structure}"),
            Marker::MapTracer { map } => write!(f, "gadget_map_tracer_{map}"),
            Marker::Iter { source, structure, programs } => {
                write!(f, "gadget_iter_{source}___{structure}___{}", programs.join("___"))
            }
            Marker::MapIter { source, map } => write!(f, "gadget_mapiter_{source}___{map}"),
            Marker::MapElemTarget { program, map } => {
                write!(f, "gadget_mapelem_iter_target_{program}___{map}")
            }
            Marker::SocketTarget { program, map } => {
                write!(f, "gadget_sk_prog_target_{program}___{map}")
            }
            Marker::Param { var } => write!(f, "gadget_param_{var}"),
            Marker::PacketFilter { name } => write!(f, "gadget_pf_{name}"),
        }
    }
}

/// `None` for names that only look like markers.
pub(super) fn parse_marker(name: &str) -> Result<Option<Marker>, MarkerFault> {
    let split = |rest: &str| rest.split("___").map(str::to_owned).collect::<Vec<_>>();
    let pair = |rest: &str| match <[String; 2]>::try_from(split(rest)) {
        Ok(p) => Ok(p),
        Err(v) => Err(MarkerFault::Parts { wanted: "2", found: v.len() }),
    };
    let Some(rest) = name.strip_prefix("gadget_") else {
        return Ok(None);
    };
    if let Some(r) = rest.strip_prefix("tracer_") {
        return match <[String; 3]>::try_from(split(r)) {
            Ok([source, map, structure]) => Ok(Some(Marker::Tracer { source, map, structure })),
            Err(v) => Err(MarkerFault::Parts { wanted: "3", found: v.len() }),
        };
    }
    if let Some(r) = rest.strip_prefix("iter_").or_else(|| rest.strip_prefix("snapshotter_")) {
        let mut parts = split(r);
        if parts.len() < 3 {
            return Err(MarkerFault::Parts { wanted: "at least 3", found: parts.len() });
        }
        let programs = parts.split_off(2);
        let structure = parts.remove(1);
        return Ok(Some(Marker::Iter { source: parts.remove(0), structure, programs }));
    }
    if let Some(r) = rest.strip_prefix("mapiter_") {
        let [source, map] = pair(r)?;
        return Ok(Some(Marker::MapIter { source, map }));
    }
    if let Some(r) = rest.strip_prefix("mapelem_iter_target_") {
        let [program, map] = pair(r)?;
        return Ok(Some(Marker::MapElemTarget { program, map }));
    }
    if let Some(r) = rest.strip_prefix("sk_prog_target_") {
        let [program, map] = pair(r)?;
        return Ok(Some(Marker::SocketTarget { program, map }));
    }
    Ok(rest
        .strip_prefix("map_tracer_")
        .map(|map| Marker::MapTracer { map: map.into() })
        .or_else(|| rest.strip_prefix("param_").map(|var| Marker::Param { var: var.into() })))
}
