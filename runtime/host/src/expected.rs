//! What a guest will show, from its files alone.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use cocoon_attestation::Measurements;
use cocoon_image::ProcessImage;
use cocoon_image_build::WeightsDisk;
use ring::digest::{Context, SHA256, digest};

use crate::{
    HostError,
    image::Image,
    process::{COMMAND_LINE, GuestBinary},
};

/// Bytes of the model that are hashed at a time.
const CHUNK: usize = 1024 * 1024;

/// How a guest is configured; all of it is measured. The meaning and bounds are the guest's `Config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestSettings {
    /// Most tokens of a prompt and its answer together.
    pub max_context: usize,
    /// Most answers in progress.
    pub max_running: usize,
    /// Most requests that wait.
    pub max_queued: usize,
    /// Threads that compute; 0 takes one for each core.
    pub threads: usize,
    /// Tokens after which an answer shows its usage.
    pub tick_tokens: u32,
    /// The tables of another engine than the guest's own, `[engine]` and those below it, in process mode alone: a booted image
    /// holds no other program.
    pub engine: Option<Arc<str>>,
}

impl Default for GuestSettings {
    fn default() -> Self {
        Self { max_context: 2048, max_running: 2, max_queued: 16, threads: 0, tick_tokens: 16, engine: None }
    }
}

/// What a guest shows that is launched from these files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Registers of TDX, or of its emulator.
    Tdx(Box<Measurements>),
    /// SEV-SNP: the launch digest. Configuration and weights stand in the statement alone.
    Snp {
        /// As the firmware computes it.
        launch_digest: [u8; 48],
    },
}

impl Reference {
    /// The registers of TDX, if that is what it is.
    pub fn tdx(&self) -> Option<&Measurements> {
        match self {
            Self::Tdx(measurements) => Some(measurements),
            Self::Snp { .. } => None,
        }
    }
}

/// A guest's files, read, and what it will measure of them.
#[derive(Clone)]
pub struct Expected {
    /// The bytes of `config.toml`.
    pub configuration: Arc<[u8]>,
    /// SHA-256 of the model file.
    pub weights: [u8; 32],
    /// The model's name.
    pub model_name: String,
    /// What an honest guest shows.
    pub reference: Reference,
    /// What boots.
    pub(crate) boots: Boots,
}

/// What boots.
#[derive(Clone)]
pub(crate) enum Boots {
    Process(GuestBinary),
    Vm(Arc<Image>),
}

impl Expected {
    /// Reads the guest's binary and the model, and predicts the registers of a guest in process mode. What is in the binary now is what is
    /// executed later.
    ///
    /// # Errors
    /// [`HostError::GuestBinary`], [`HostError::Model`], or a model name that a configuration cannot hold.
    pub async fn read(
        guest_binary: &Path,
        model: &Path,
        model_name: &str,
        network: i32,
        settings: GuestSettings,
    ) -> Result<Self, HostError> {
        let (binary, model) = (guest_binary.to_path_buf(), model.to_path_buf());
        let model_name = model_name.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let binary = GuestBinary::read(&binary)?;
            let weights =
                file_digest(&model).map_err(|source| HostError::Model { path: model.clone(), source })?;
            Self::of_process(binary, weights, model_name, network, settings)
        });
        read.await.map_err(|e| HostError::Options(e.to_string()))?
    }

    /// Reads an image and the model, and says what a VM shows that boots the one with the other.
    ///
    /// # Errors
    /// [`HostError::Image`], [`HostError::Model`], or a model name that a configuration cannot hold.
    pub async fn of_image(
        image: &Image,
        model: &Path,
        model_name: &str,
        network: i32,
        settings: GuestSettings,
    ) -> Result<Self, HostError> {
        let (image, model, model_name) = (image.clone(), model.to_path_buf(), model_name.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let disk = image.weights_disk(&model)?;
            let configuration = configuration(network, &model_name, &disk.weights.0, settings, Some(&disk))?;
            let reference = image.reference(&configuration, &disk.weights.0);
            let (weights, boots) = (disk.weights.0, Boots::Vm(Arc::new(image.with_weights(disk))));
            Ok(Self { configuration: configuration.into(), weights, model_name, reference, boots })
        });
        read.await.map_err(|e| HostError::Options(e.to_string()))?
    }

    fn of_process(
        binary: GuestBinary,
        weights: [u8; 32],
        model_name: String,
        network: i32,
        settings: GuestSettings,
    ) -> Result<Self, HostError> {
        let configuration: Arc<[u8]> = configuration(network, &model_name, &weights, settings, None)?.into();
        let image = ProcessImage {
            guest_binary: &binary.bytes,
            command_line: COMMAND_LINE,
            configuration: &configuration,
            weights_sha256: weights,
        };
        let reference = Reference::Tdx(Box::new(image.measurements()));
        Ok(Self { configuration, weights, model_name, reference, boots: Boots::Process(binary) })
    }

    /// SHA-256 of the configuration, as statements carry it.
    pub fn configuration_digest(&self) -> [u8; 32] {
        digest(&SHA256, &self.configuration).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// The bytes of `config.toml`: the same for the same settings, since they are measured.
fn configuration(
    network: i32,
    model_name: &str,
    weights: &[u8; 32],
    settings: GuestSettings,
    disk: Option<&WeightsDisk>,
) -> Result<Vec<u8>, HostError> {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    if model_name.is_empty() || model_name.len() > 128 || !model_name.chars().all(fits) {
        let why = "a model's name is 1 to 128 letters, digits and signs without space, quote or backslash";
        return Err(HostError::Options(why.to_owned()));
    }
    let GuestSettings { max_context, max_running, max_queued, threads, tick_tokens, engine } = settings;
    if engine.is_some() && disk.is_some() {
        let why = "a booted image holds no other engine than its own, and its service can start no process: leave `engine` out, \
                   or serve it in process mode";
        return Err(HostError::Options(why.to_owned()));
    }
    let weights = hex::encode(weights);
    let disk = disk
        .map_or_else(String::new, |disk| format!("bytes = {}\nverity = \"{}\"\n", disk.bytes, disk.verity));
    let text = format!(
        "network = {network}\nmax_context = {max_context}\nmax_running = {max_running}\n\
         max_queued = {max_queued}\nthreads = {threads}\ntick_tokens = {tick_tokens}\n\n\
         [model]\nname = \"{model_name}\"\nweights = \"{weights}\"\n{disk}"
    );
    let engine = engine.map_or_else(String::new, |engine| format!("\n{engine}"));
    Ok((text + &engine).into_bytes())
}

fn file_digest(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let (mut context, mut chunk) = (Context::new(&SHA256), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => context.update(&chunk[..read]),
        }
    }
    Ok(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
