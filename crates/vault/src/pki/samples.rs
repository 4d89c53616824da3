//! The meaning of any answer of the engine's, for who makes them up.

use super::super::transport::Reply;
use super::said::{self, Asked, Question};
use super::{ROOT_LIFE, Refused};

/// The certificate that an answer has, if the question is for one. `None`: there is no such question.
///
/// # Errors
/// The refusal that it is.
pub(in super::super) fn meaning(question: &str, reply: &Reply) -> Option<Result<Option<String>, Refused>> {
    let of = |asked| Question { mount: "pki-mesh".to_owned(), role: "istio-ca-sync".to_owned(), asked };
    let issuer = || "root-1".to_owned();
    let none = |told: Result<(), Refused>| told.map(|()| None);
    Some(match question {
        "issuer" => said::issuer(&of(Asked::Issuer { name: issuer() }), reply).map(Some),
        "signer" => {
            let (common_name, ttl) = ("Istio Intermediate CA nas".to_owned(), "2160h".to_owned());
            said::signer(&of(Asked::Signer { issuer: issuer(), common_name, ttl }), reply).map(Some)
        }
        "usage" => said::usage(&of(Asked::Usage { issuer: issuer() }), reply).map(|_| None),
        "made" => none(said::made(&of(Asked::Root { name: issuer(), life: ROOT_LIFE }), reply)),
        "engine" => none(said::mount(&of(Asked::Root { name: issuer(), life: ROOT_LIFE }), reply)),
        "changed" => none(said::changed(&of(Asked::Behavior { issuer: issuer() }), reply)),
        _ => return None,
    })
}
