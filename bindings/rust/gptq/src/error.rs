// SPDX-License-Identifier: Apache-2.0
use crate::sys;
use std::cell::RefCell;
use std::ffi::{c_char, CStr};
use std::fmt;

/// A status code of the C API: one of `gptq::sys::GPTQ_E_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub i32);

impl Status {
    /// "GPTQ_E_IO", and so on.
    pub fn name(self) -> &'static str {
        unsafe { CStr::from_ptr(sys::gptq_status_name(self.0)) }.to_str().unwrap_or("unknown status")
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What libgptq reports. `site` is where it failed: quote it in bug reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub status: Status,
    pub message: String,
    pub site: String,
    pub offset: u64,
    pub os_code: i64,
}

pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.message, self.status)
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(crate) fn new(status: i32, message: &str) -> Self {
        Error { status: Status(status), message: message.into(), site: String::new(), offset: 0, os_code: 0 }
    }
}

pub(crate) fn text_of(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

thread_local! {
    // The thread's last GPTQ_LOG_ERROR: functions without an error parameter send their message to the log before they return.
    static TOLD: RefCell<String> = const { RefCell::new(String::new()) };
}

pub(crate) fn tell(text: &str) {
    let _ = TOLD.try_with(|told| *told.borrow_mut() = text.into());
}

/// The status of a function that has no error parameter.
pub(crate) fn check(status: i32) -> Result<i32> {
    if status >= 0 {
        return Ok(status);
    }
    let told = TOLD.take();
    let split = told.strip_suffix(']').and_then(|told| told.rsplit_once(" ["));
    Err(match (split, told.as_str()) {
        (Some((message, site)), _) => Error { site: site.into(), ..Error::new(status, message) },
        (None, "") => Error::new(status, Status(status).name()),
        (None, told) => Error::new(status, told),
    })
}

/// The same of a function that tells none.
pub(crate) fn check_or(status: i32, message: impl FnOnce() -> String) -> Result<i32> {
    check(status).map_err(|error| if error.site.is_empty() { Error { message: message(), ..error } } else { error })
}

/// Calls f(err).
pub(crate) fn call(f: impl FnOnce(&mut sys::gptq_error) -> i32) -> Result<i32> {
    let mut error = sys::gptq_error::default();
    let status = f(&mut error);
    if status >= 0 || error.status == 0 {
        return check(status);
    }
    Err(Error {
        status: Status(status),
        message: text_of(&error.message),
        site: text_of(&error.site),
        offset: error.offset,
        os_code: error.os_code,
    })
}

/// The output of f(buffer, capacity, needed).
pub(crate) fn sized<T: Clone + Default>(mut f: impl FnMut(*mut T, usize, &mut usize) -> Result<i32>) -> Result<Vec<T>> {
    let mut needed = 0;
    match f(std::ptr::null_mut(), 0, &mut needed) {
        Err(error) if error.status.0 != sys::GPTQ_E_BUFFER_TOO_SMALL => return Err(error),
        _ => (),
    }
    let mut buffer = vec![T::default(); needed];
    f(buffer.as_mut_ptr(), buffer.len(), &mut needed)?;
    Ok(buffer)
}
