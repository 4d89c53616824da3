//! Questions that are answered and not stored: whose token is this, may he do that; and tokens on request.

use http::header;
use serde_json::{Value, json};

use super::object::meta;
use super::options::Options;
use super::refusal::{Cause, Refusal};
use super::route::Ask;
use super::server::{Call, Core, answer};
use super::store::Key;
use super::tokens::{Account, Bearer, User, rejected};
use super::{body, managed, rbac};
use crate::wire::{Answer, Request};

/// The shortest that is granted, and what is granted without a wish.
const SECONDS: (i64, i64) = (600, 3600);

const AUTHENTICATION: &str = "authentication.k8s.io/v1";

impl Core {
    /// Who asks; without a token, nobody in particular.
    pub(crate) fn authenticate(&self, request: &Request) -> Result<User, Refusal> {
        let Some(header) = request.header(header::AUTHORIZATION) else { return Ok(User::anonymous()) };
        let Some(token) = header.strip_prefix("Bearer ") else { return Ok(User::anonymous()) };
        match self.identify(token.trim(), &self.audiences()) {
            Ok((user, _)) => Ok(user),
            Err(_) => Err(Refusal::unauthorized()),
        }
    }

    /// Those of the API itself.
    fn audiences(&self) -> Vec<String> {
        vec![self.tokens.issuer().to_owned(), "vault".to_owned()]
    }

    /// Whose token it is, and for which of these audiences; or what TokenReview says to it.
    fn identify(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), String> {
        let known = self.audiences();
        let ours: Vec<String> = audiences.iter().filter(|audience| known.contains(audience)).cloned().collect();
        if token == self.admin_token && !ours.is_empty() {
            return Ok((User::admin(), ours));
        }
        let bearer = self.tokens.read(token, super::now().as_second())?;
        let matching: Vec<String> =
            audiences.iter().filter(|audience| bearer.audiences.contains(audience)).cloned().collect();
        if matching.is_empty() {
            let (has, wants) = (go_strings(&bearer.audiences), go_strings(audiences));
            return Err(rejected(&format!("token audiences {has} is invalid for the target audiences {wants}")));
        }
        self.account_is_there(&bearer)?;
        Ok((bearer.user(), matching))
    }

    fn account_is_there(&self, bearer: &Bearer) -> Result<(), String> {
        let Account { namespace, name, uid } = &bearer.account;
        if is_controller(&bearer.account) {
            return Ok(());
        }
        let key = Key { plural: "serviceaccounts", namespace: namespace.clone(), name: name.clone() };
        let account = self.store().get(&key);
        let account = account.ok_or_else(|| rejected(&format!("serviceaccounts {name:?} not found")))?;
        let is = meta(&account, "uid");
        if is != uid {
            return Err(rejected(&format!("service account UID ({is}) does not match claim ({uid})")));
        }
        Ok(())
    }
}

/// Controllers have accounts that nobody made: nothing but their name is needed.
fn is_controller(account: &Account) -> bool {
    account.namespace == "kube-system" && account.uid.is_empty()
}

fn go_strings(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

pub(crate) fn review(core: &Core, call: &Call<'_>) -> Result<Answer, Refusal> {
    let options = Options::of(call)?;
    let mut review = body::object(call)?;
    review = managed::created(call, &options, review);
    review["status"] = match call.resource.kind {
        "TokenReview" => token_review(core, &review)?,
        "SelfSubjectAccessReview" => access(core, &call.user, &review["spec"]),
        _ => {
            let groups = review["spec"]["groups"].as_array().into_iter().flatten();
            let user = User {
                name: review["spec"]["user"].as_str().unwrap_or_default().to_owned(),
                groups: groups.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
                ..User::anonymous()
            };
            access(core, &user, &review["spec"])
        }
    };
    Ok(answer(call.request, 201, &review))
}

fn token_review(core: &Core, review: &Value) -> Result<Value, Refusal> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Refusal::bad_request("token is required for TokenReview in authentication"));
    }
    let asked: Option<Vec<String>> = serde_json::from_value(review["spec"]["audiences"].clone()).unwrap_or_default();
    let asked = asked.filter(|asked| !asked.is_empty()).unwrap_or_else(|| core.audiences());
    Ok(match core.identify(token, &asked) {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user.info(), "audiences": audiences}),
        Err(error) => json!({"user": {}, "error": error}),
    })
}

fn access(core: &Core, user: &User, spec: &Value) -> Value {
    let resource = &spec["resourceAttributes"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ask = Ask {
        is_resource: resource.is_object(),
        verb: text(if resource.is_object() { &resource["verb"] } else { &spec["nonResourceAttributes"]["verb"] }),
        group: text(&resource["group"]),
        version: text(&resource["version"]),
        plural: text(&resource["resource"]),
        subresource: text(&resource["subresource"]),
        namespace: text(&resource["namespace"]),
        name: text(&resource["name"]),
        path: text(&spec["nonResourceAttributes"]["path"]),
    };
    let rights = rbac::Rights::of(&core.store(), user);
    let allowed = rights.allow(&ask);
    match rights.trouble(&ask).filter(|_| !allowed) {
        Some(trouble) => json!({"allowed": allowed, "reason": trouble}),
        None => json!({"allowed": allowed}),
    }
}

/// `POST …/serviceaccounts/x/token`.
pub(crate) fn token_request(core: &Core, call: &Call<'_>) -> Result<Answer, Refusal> {
    let sent = body::json(call, "TokenRequest")?;
    let account = core.store().get(&call.key()).ok_or_else(|| Refusal::not_found(call.resource, &call.ask.name))?;
    let seconds = sent["spec"]["expirationSeconds"].as_i64().unwrap_or(SECONDS.1);
    if seconds < SECONDS.0 {
        let why = "may not specify a duration less than 10 minutes";
        let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), why);
        return Err(Refusal::invalid_of("authentication.k8s.io", "TokenRequest", "", &[cause]));
    }
    let audiences: Option<Vec<String>> = serde_json::from_value(sent["spec"]["audiences"].clone()).unwrap_or_default();
    let audiences = audiences.filter(|audiences| !audiences.is_empty()).unwrap_or_else(|| core.audiences());
    let now = super::now();
    let owner = Account {
        namespace: call.ask.namespace.clone(),
        name: call.ask.name.clone(),
        uid: meta(&account, "uid").to_owned(),
    };
    let token = core.tokens.issue(&owner, &audiences, now.as_second(), seconds, &super::uid()?);
    let token = token.map_err(Refusal::internal)?;
    let expires = super::seconds(now.as_second() + seconds);
    let request = json!({
        "kind": "TokenRequest",
        "apiVersion": AUTHENTICATION,
        "metadata": {
            "name": owner.name, "namespace": owner.namespace, "uid": owner.uid,
            "creationTimestamp": super::seconds(now.as_second()),
        },
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": null},
        "status": {"token": token, "expirationTimestamp": expires},
    });
    Ok(answer(call.request, 201, &request))
}
