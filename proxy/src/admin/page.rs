//! The status page: one document with its style and script, which reads `/status` and `/topology`.

use std::hash::{BuildHasher, Hasher, RandomState};

use http_body_util::Full;
use hyper::{
    Response,
    body::Bytes,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
};

/// With `{{nonce}}` where the policy's is to be.
const PAGE: &str = include_str!("page.html");

/// The page. Its policy lets nothing run or load but what is in it: no other style, script, image or
/// address.
pub(super) fn page() -> Response<Full<Bytes>> {
    let nonce = nonce();
    let body = PAGE.replace("{{nonce}}", &nonce);
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Another one for each answer.
fn nonce() -> String {
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}
