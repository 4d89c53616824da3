#![allow(clippy::unwrap_used)]

use jsonwebtoken::{EncodingKey, Header};
use testbed::token_signing_key;

use super::super::asked::Operation;
use super::super::moment;
use super::*;

fn asked(path: &str, data: Value) -> Asked {
    let data = data.as_object().cloned().unwrap_or_default();
    Asked { operation: Operation::Update, path: path.to_owned(), data, token: String::new() }
}

/// A mount for tokens of one key, with the role `gate`.
fn mount(public_key: &str) -> Jwt {
    let mut jwt = Jwt::default();
    let config = json!({ "jwt_validation_pubkeys": [public_key], "bound_issuer": "https://nas" });
    jwt.handle(&asked("config", config)).unwrap();
    let role = json!({ "role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": "p" });
    jwt.handle(&asked("role/gate", role)).unwrap();
    jwt
}

fn token(key: &str, claims: &Value) -> String {
    let key = EncodingKey::from_rsa_pem(key.as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &key).unwrap()
}

fn login(jwt: &Jwt, token: &str) -> Result<String, String> {
    let asked = asked("login", json!({ "role": "gate", "jwt": token }));
    let granted = jwt.login(moment::some(0).now, &asked);
    granted.map(|granted| granted.alias).map_err(|refusal| refusal.errors.join(";"))
}

#[test]
fn a_token_of_the_configured_key_logs_in_and_no_other() {
    let ((key, public_key), (other_key, _)) = (token_signing_key().unwrap(), token_signing_key().unwrap());
    let jwt = mount(&public_key);
    let exp = moment::some(60).now.as_second();
    let claims = json!({ "iss": "https://nas", "sub": "gate", "aud": ["vault"], "exp": exp });
    assert_eq!(login(&jwt, &token(&key, &claims)), Ok("gate".to_owned()));
    let no_key = Err("error validating token: error verifying token signature: no known key successfully validated \
                      the token signature"
        .to_owned());
    assert_eq!(login(&jwt, &token(&other_key, &claims)), no_key);
    // A public key is no shared secret.
    let secret = EncodingKey::from_secret(public_key.as_bytes());
    let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
    assert_eq!(login(&jwt, &forged), no_key);
    let unsigned = token(&key, &claims).rsplit_once('.').map(|(rest, _)| format!("{rest}.")).unwrap();
    assert_eq!(login(&jwt, &unsigned), no_key);
}
