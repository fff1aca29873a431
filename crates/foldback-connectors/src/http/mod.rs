//! `http`: one HTTP request, one answer.
//!
//! What a complete answer says is a known outcome; a connection that broke after the request may
//! have left is not, and is reported as unknown. Never: a retry, a cookie, a redirect that was not
//! asked for, or a secret sent to another host than the one the definition names.
//!
//! Output: `content` (the default) is JSON where the answer says so (or says nothing and parses),
//! `null` where it is empty JSON or says nothing, else its text, decoded by the `charset` that the answer
//! names (UTF-8 where it names none). A picture, a sound, a PDF, and bytes that are no text in that charset
//! become a `data:` URI, which is stored as its bytes ([`foldback_core::media`]).
//! `raw` is the base64 of the bytes. `response` is `{request, statusCode, headers, content}`, the
//! request without secrets.
//!
//! A 3xx is an error, as OWS says, unless `redirect` is true: then it is followed up to
//! [`HOPS_MAX`] times, and is an answer like another where it names no place. A redirect behind the last of
//! them is an error: nobody has answered.

mod answer;
mod charset;
mod plan;

use std::sync::Arc;

use foldback_core::step::error_type;
use foldback_core::{Effect, Failure, Outcome, limits};
use foldback_engine::kind::Call;
use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderValue, LOCATION,
};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

use crate::config::{Config, StandIns};
use crate::request::no_room;
use crate::web;
use crate::work::{Work, failed};
use plan::Plan;

/// Redirects followed in one call.
pub(crate) const HOPS_MAX: usize = 10;

/// The kind `http`.
pub(crate) struct Http {
    stand_ins: StandIns,
}

impl Http {
    pub(crate) fn new(config: &Config) -> Http {
        Http { stand_ins: config.stand_ins.clone() }
    }
}

impl Work for Http {
    const RUN_AHEAD: u32 = limits::RUN_AHEAD_OTHER;
    const TIMEOUT_MS: u64 = limits::HTTP_TIMEOUT_MS;
    const FILES: usize = 2;

    async fn work(self: Arc<Self>, call: Call, request: Value) -> Outcome {
        match Plan::read(&call, &request) {
            Ok(plan) => perform(plan, call.effect, call.attempt, &self.stand_ins).await,
            Err(error) => failed(error),
        }
    }
}

/// What is wrong with a request before anything was sent.
pub(crate) fn bad_request(detail: impl Into<String>) -> Failure {
    Failure::new(error_type::CONFIGURATION, 400, "Bad request", detail)
}

async fn perform(mut plan: Plan, effect: Effect, attempt: u32, stand_ins: &StandIns) -> Outcome {
    let is_write = effect == Effect::Write;
    // What a server closed while it was asked is not asked over a kept connection again.
    let is_fresh = is_write || attempt > 1;
    let client = if is_fresh { web::fresh() } else { web::pooled() };
    let client = match client {
        Ok(client) => client,
        Err(why) => {
            return failed(Failure::new(error_type::CONFIGURATION, 500, "No HTTP client", why));
        }
    };
    let mut hop = 0;
    loop {
        let (url, host) = target(&plan.url, stand_ins);
        let mut request = client.request(plan.method.clone(), url).headers(plan.headers.clone());
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        if is_fresh {
            request = request.header(CONNECTION, HeaderValue::from_static("close"));
        }
        request = match plan.body.clone() {
            Some(body) => request.body(body),
            // Without a length some servers answer 411.
            None if takes_a_body(&plan.method) => {
                request.header(CONTENT_LENGTH, HeaderValue::from_static("0"))
            }
            None => request,
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return not_answered(&plan, &error, hop),
        };
        if !plan.redirect {
            return answer::read(&plan, response, effect).await;
        }
        let refused = |title, why| {
            failed(Failure::new(error_type::COMMUNICATION, response.status().as_u16(), title, why))
        };
        match next_hop(&plan, &response) {
            Hop::Answer => return answer::read(&plan, response, effect).await,
            Hop::Refused(why) => return refused("Redirect refused", why),
            Hop::To(url) if hop == HOPS_MAX => {
                let place = format!("{} {}", plan.method, web::origin(&plan.url));
                let why = format!(
                    "{place}: the server still redirects after {HOPS_MAX} redirects, now to {}",
                    web::origin(&url)
                );
                return refused("Too many redirects", why);
            }
            Hop::To(url) => follow(&mut plan, url, response.status()),
        }
        hop += 1;
    }
}

/// Where a request is sent, and the host it is meant for where another server stands in for it.
fn target(url: &Url, stand_ins: &StandIns) -> (Url, Option<String>) {
    let Some((host, server)) = url.host_str().and_then(|host| stand_ins.get_key_value(host)) else {
        return (url.clone(), None);
    };
    let mut target = url.clone();
    let is_set = target.set_scheme("http").is_ok()
        && target.set_ip_host(server.ip()).is_ok()
        && target.set_port(Some(server.port())).is_ok();
    // `http` and `https` addresses have a host and can all be rewritten.
    if is_set { (target, Some(host.clone())) } else { (url.clone(), None) }
}

/// A request without an answer: refused before it was sent, or gone.
fn not_answered(plan: &Plan, error: &reqwest::Error, hop: usize) -> Outcome {
    let place = format!("{} {}", plan.method, web::origin(&plan.url));
    let why = web::cause(error);
    if error.is_builder() {
        return failed(bad_request(format!("{place}: {why}")));
    }
    // Behind a redirect the first request did land somewhere: only the first hop can be sure.
    if error.is_connect() && hop == 0 {
        if web::is_no_room(error) {
            return failed(no_room(format!("{place}: {why}")));
        }
        return failed(Failure::new(
            error_type::COMMUNICATION,
            503,
            "Not reachable",
            format!("{place}: {why}"),
        ));
    }
    Outcome::Unknown { reason: format!("{place}: no complete answer: {why}") }
}

enum Hop {
    Answer,
    To(Url),
    Refused(String),
}

fn next_hop(plan: &Plan, response: &Response) -> Hop {
    let moves = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let (true, Some(location)) = (moves, location) else {
        return Hop::Answer;
    };
    let Ok(url) = plan.url.join(location) else {
        return Hop::Refused("the server redirects to an address that is none".to_owned());
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Hop::Refused(format!("the server redirects to `{}:`", url.scheme()));
    }
    let is_elsewhere = url.origin() != plan.url.origin();
    if is_elsewhere && plan.has_secret_body && keeps_body(response.status(), &plan.method) {
        return Hop::Refused(format!("the body holds a secret and is not sent on to {}", web::origin(&url)));
    }
    Hop::To(url)
}

/// Whether a server expects a body with this method, and so a length where there is none.
fn takes_a_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn keeps_body(status: StatusCode, method: &Method) -> bool {
    match status.as_u16() {
        303 => false,
        301 | 302 => *method != Method::POST,
        _ => true,
    }
}

fn follow(plan: &mut Plan, url: Url, status: StatusCode) {
    if !keeps_body(status, &plan.method) {
        plan.body = None;
        plan.headers.remove(CONTENT_TYPE);
        if plan.method != Method::HEAD {
            plan.method = Method::GET;
        }
    }
    if url.origin() != plan.url.origin() {
        plan.headers.remove(AUTHORIZATION);
        plan.headers.remove(COOKIE);
        for name in &plan.secret_headers {
            plan.headers.remove(name);
        }
    }
    plan.url = url;
}
