//! The files of a torrent, with paths made safe (BEP 3, 47).

/// One file of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path below the download folder, the torrent's own folder first, every element safe.
    pub path: Vec<String>,
    /// Bytes.
    pub len: u64,
    /// Its offset in the content.
    pub offset: u64,
    /// BEP 47 attributes.
    pub attributes: Attributes,
}

/// The attributes of a file (BEP 47).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Zeros that exist only to align the next file; never on disk.
    pub pad: bool,
    /// To be executable.
    pub executable: bool,
    /// To be hidden.
    pub hidden: bool,
}
