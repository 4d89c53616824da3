//! Two clusters and a Vault, set up as the README says.

use std::ops::Deref;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
pub use testbed::side::{Login, NAMESPACE, SOON};
use testbed::{Cluster, Vault, VaultOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Worlds at a time: each takes up to 1.5 GB, and the machine may have two cores.
static WORLDS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(2));

/// A place for one world, as long as it is kept.
pub async fn place() -> Result<SemaphorePermit<'static>> {
    Ok(WORLDS.acquire().await?)
}

/// A real cluster, and what its gate is to Vault.
pub struct Side {
    pub side: testbed::side::Side,
    pub cluster: Cluster,
}

impl Deref for Side {
    type Target = testbed::side::Side;

    fn deref(&self) -> &Self::Target {
        &self.side
    }
}

impl Side {
    async fn homelab() -> Result<Self> {
        Self::homelab_with("overlays/homelab").await
    }

    async fn nas() -> Result<Self> {
        Self::nas_with("overlays/nas").await
    }

    /// A homelab with this folder of deploy/kustomize.
    pub async fn homelab_with(overlay: &str) -> Result<Self> {
        let cluster = Cluster::start("homelab").await?;
        Self { side: testbed::side::Side::homelab((*cluster).clone()), cluster }.prepare(overlay).await
    }

    /// A NAS with this folder of deploy/kustomize.
    pub async fn nas_with(overlay: &str) -> Result<Self> {
        let cluster = Cluster::start("nas").await?;
        Self { side: testbed::side::Side::nas((*cluster).clone()), cluster }.prepare(overlay).await
    }

    /// Applies manifests of deploy/ by kubectl, as a user does.
    async fn prepare(self, overlay: &str) -> Result<Self> {
        self.cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        self.apply(overlay).await?;
        Ok(self)
    }

    /// Applies a folder of deploy/kustomize, in which every field has to be one that the API server knows.
    pub async fn apply(&self, overlay: &str) -> Result<String> {
        let folder = format!("{}/deploy/kustomize/{overlay}", env!("CARGO_MANIFEST_DIR"));
        self.cluster.kubectl(&["apply", "--validate=strict", "-k", &folder]).await
    }

    /// Applies the side's overlay with these components, as a user's own kustomization does.
    pub async fn apply_with(&self, components: &[&str]) -> Result<String> {
        let folder = kustomization(&format!("overlays/{}", self.name), components)?;
        let path = folder.path().to_str().context("the folder's name is not UTF-8")?;
        self.cluster.kubectl(&["apply", "--validate=strict", "-k", path]).await
    }

    /// Each cluster as the README lets it in.
    pub fn login(&self) -> Login {
        if self.role == "bootstrap" { Login::TokenReview } else { Login::Signature }
    }

    pub async fn introduce_to(&self, vault: &Vault) -> Result<()> {
        self.side.introduce_to(vault, self.login()).await
    }

    pub async fn grant(&self, vault: &Vault) -> Result<()> {
        self.side.grant(vault, self.login()).await
    }
}

/// A folder with a kustomization of a folder and of components of deploy/kustomize.
pub fn kustomization(resource: &str, components: &[&str]) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    // kustomize takes relative paths alone.
    let up = "../".repeat(folder.path().components().count() - 1);
    let root = env!("CARGO_MANIFEST_DIR").trim_start_matches('/');
    let here = |path: String| format!("{up}{root}/deploy/kustomize/{path}");
    // Within the overlay, as a user has them, its images are the components', too.
    let file = format!("/{root}/deploy/kustomize/{resource}/kustomization.yaml");
    let overlay: Value = serde_saphyr::from_str(&std::fs::read_to_string(file)?)?;
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [here(resource.to_owned())],
        "components": components.iter().map(|name| here(format!("components/{name}"))).collect::<Vec<_>>(),
        "images": overlay["images"],
    });
    std::fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string())?;
    Ok(folder)
}

/// Two sides and the Vault that they share.
pub struct World {
    pub homelab: Side,
    pub nas: Side,
    pub vault: Vault,
    _permit: SemaphorePermit<'static>,
}

/// One side and its Vault, where the other side has no part.
pub struct SmallWorld {
    pub side: Side,
    pub vault: Vault,
    _permit: SemaphorePermit<'static>,
}

impl World {
    pub async fn start() -> Result<Self> {
        let world = Self::not_introduced().await?;
        world.homelab.introduce_to(&world.vault).await?;
        world.nas.introduce_to(&world.vault).await?;
        Ok(world)
    }

    /// With a Vault that knows neither.
    pub async fn not_introduced() -> Result<Self> {
        let permit = place().await?;
        let (homelab, nas, vault) =
            tokio::try_join!(Side::homelab(), Side::nas(), Vault::start(VaultOptions::default()))?;
        Ok(Self { homelab, nas, vault, _permit: permit })
    }
}

impl SmallWorld {
    pub async fn homelab() -> Result<Self> {
        let permit = place().await?;
        let (side, vault) = tokio::try_join!(Side::homelab(), Vault::start(VaultOptions::default()))?;
        side.introduce_to(&vault).await?;
        Ok(Self { side, vault, _permit: permit })
    }

    pub async fn nas() -> Result<Self> {
        let permit = place().await?;
        let (side, vault) = tokio::try_join!(Side::nas(), Vault::start(VaultOptions::default()))?;
        side.introduce_to(&vault).await?;
        Ok(Self { side, vault, _permit: permit })
    }
}
