// SPDX-License-Identifier: Apache-2.0
//! What models, adapters and saves are read from and written to.
use crate::callback::Panic;
use crate::error::{call, check, Error};
use crate::{sys, Result};
use std::ffi::c_void;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

trait Stream: Read + Seek + Send {}
impl<T: Read + Seek + Send> Stream for T {}

enum Kind<'a> {
    Path(String),
    Bytes(&'a [u8]),
    Stream(&'a mut dyn Stream),
}

/// A file, bytes, or a stream, whole or a part of it.
pub struct Source<'a> {
    kind: Kind<'a>,
    offset: u64,
    size: u64,
}

impl<'a> Source<'a> {
    pub fn path(path: impl AsRef<Path>) -> Self {
        Self::of(Kind::Path(path.as_ref().to_string_lossy().into_owned()))
    }
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self::of(Kind::Bytes(bytes))
    }
    /// It is read by one thread at a time, maybe by the library's. Its errors are in the message of the call's error; its panics go on above the
    /// call.
    pub fn stream(stream: &'a mut (impl Read + Seek + Send)) -> Self {
        Self::of(Kind::Stream(stream))
    }
    /// The part from offset on; size 0: to the end.
    pub fn part(self, offset: u64, size: u64) -> Self {
        Source { offset, size, ..self }
    }
    fn of(kind: Kind<'a>) -> Self {
        Source { kind, offset: 0, size: 0 }
    }

    pub(crate) fn with(self, f: impl FnOnce(*const sys::gptq_source, &mut sys::gptq_error) -> i32) -> Result<i32> {
        let mut source = sys::gptq_source { offset: self.offset, size: self.size, ..Default::default() };
        match self.kind {
            Kind::Path(path) => {
                (source.path, source.path_size) = (path.as_ptr().cast(), path.len());
                call(|error| f(&source, error))
            }
            Kind::Bytes(bytes) => {
                (source.data, source.data_size) = (bytes.as_ptr().cast(), bytes.len());
                call(|error| f(&source, error))
            }
            Kind::Stream(stream) => {
                let mut reader = Reader(Mutex::new(State { stream, failures: Failures::default() }));
                let io = sys::gptq_io {
                    user: std::ptr::from_mut(&mut reader).cast(),
                    size: Some(size_of_stream),
                    read_at: Some(read_at),
                    ..Default::default()
                };
                source.io = &io;
                let result = call(|error| f(&source, error));
                reader.0.into_inner().unwrap_or_else(PoisonError::into_inner).failures.finish(result)
            }
        }
    }
}

/// What went wrong in a callback, for above the call.
#[derive(Default)]
struct Failures {
    error: Option<io::Error>,
    panic: Panic,
}

impl Failures {
    fn guard(&mut self, f: impl FnOnce() -> io::Result<i64>) -> i64 {
        const EIO: i64 = 5;
        if self.error.is_some() || self.panic.is_some() {
            return -EIO;
        }
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(Ok(value)) => return value,
            Ok(Err(error)) => self.error = Some(error),
            Err(panic) => self.panic = Some(panic),
        }
        -EIO
    }
    fn finish(self, result: Result<i32>) -> Result<i32> {
        if let Some(panic) = self.panic {
            resume_unwind(panic);
        }
        match (result, self.error) {
            (Err(error), Some(cause)) => {
                let os_code = cause.raw_os_error().map_or(error.os_code, i64::from);
                Err(Error { message: format!("{}: {cause}", error.message), os_code, ..error })
            }
            (result, _) => result,
        }
    }
}

struct State<'a> {
    stream: &'a mut dyn Stream,
    failures: Failures,
}
struct Reader<'a>(Mutex<State<'a>>);

unsafe fn guarded(user: *mut c_void, f: impl FnOnce(&mut dyn Stream) -> io::Result<i64>) -> i64 {
    let mut state = (*user.cast::<Reader<'_>>()).0.lock().unwrap_or_else(PoisonError::into_inner);
    let State { stream, failures } = &mut *state;
    failures.guard(|| f(&mut **stream))
}
unsafe extern "C" fn size_of_stream(user: *mut c_void) -> i64 {
    guarded(user, |stream| stream.seek(SeekFrom::End(0)).map(|size| size as i64))
}
unsafe extern "C" fn read_at(user: *mut c_void, offset: u64, to: *mut c_void, size: usize) -> i64 {
    guarded(user, |stream| {
        stream.seek(SeekFrom::Start(offset))?;
        std::ptr::write_bytes(to.cast::<u8>(), 0, size);
        let (to, mut done) = (std::slice::from_raw_parts_mut(to.cast::<u8>(), size), 0);
        while done < size {
            match stream.read(&mut to[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(done as i64)
    })
}

struct Writer<'a> {
    to: &'a mut dyn Write,
    failures: Failures,
}
unsafe extern "C" fn write(user: *mut c_void, bytes: *const c_void, size: usize) -> i32 {
    let Writer { to, failures } = &mut *user.cast::<Writer<'_>>();
    let bytes = if size == 0 { &[] } else { std::slice::from_raw_parts(bytes.cast::<u8>(), size) };
    failures.guard(|| to.write_all(bytes).map(|_| 0)) as i32
}

/// Calls f with a function that writes to `to`.
pub(crate) fn with_writer(to: &mut dyn Write, f: impl FnOnce(sys::gptq_write_fn, *mut c_void, &mut sys::gptq_error) -> i32) -> Result<()> {
    let mut writer = Writer { to, failures: Failures::default() };
    let user = std::ptr::from_mut(&mut writer).cast();
    let result = call(|error| f(Some(write), user, error));
    writer.failures.finish(result).map(|_| ())
}

/// A list of gptq_string.
pub(crate) fn strings(texts: &[impl AsRef<str>]) -> Vec<sys::gptq_string> {
    texts.iter().map(AsRef::as_ref).map(|text| sys::gptq_string { ptr: text.as_ptr().cast(), size: text.len() }).collect()
}

/// What f(index, out) gives until there is no more.
pub(crate) fn every<T: Default>(mut f: impl FnMut(u32, &mut T) -> Result<i32>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    loop {
        let mut one = T::default();
        match f(all.len() as u32, &mut one) {
            Err(error) if error.status.0 == sys::GPTQ_E_NOT_FOUND => return Ok(all),
            result => check(result?)?,
        };
        all.push(one);
    }
}
