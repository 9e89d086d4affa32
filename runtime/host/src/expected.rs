//! What a guest will measure, from its files alone.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use cocoon_attestation::Measurements;
use cocoon_image::ProcessImage;
use ring::digest::{Context, SHA256, digest};

use crate::{
    HostError,
    process::{COMMAND_LINE, GuestBinary},
};

/// Bytes of the model that are hashed at a time.
const CHUNK: usize = 1024 * 1024;

/// How a guest is configured; all of it is measured. The meaning and bounds are the guest's `Config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Default for GuestSettings {
    fn default() -> Self {
        Self { max_context: 2048, max_running: 2, max_queued: 16, threads: 0, tick_tokens: 16 }
    }
}

/// A guest's files, read, and what it will measure of them.
#[derive(Clone)]
pub struct Expected {
    pub(crate) binary: GuestBinary,
    /// The bytes of `config.toml`.
    pub configuration: Arc<[u8]>,
    /// SHA-256 of the model file.
    pub weights: [u8; 32],
    /// The model's name.
    pub model_name: String,
    /// The registers that an honest guest shows.
    pub measurements: Measurements,
}

impl Expected {
    /// Reads the guest's binary and the model, and predicts the registers. What is in the binary now is what is
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
            Self::of(binary, weights, model_name, network, settings)
        });
        read.await.map_err(|e| HostError::Options(e.to_string()))?
    }

    fn of(
        binary: GuestBinary,
        weights: [u8; 32],
        model_name: String,
        network: i32,
        settings: GuestSettings,
    ) -> Result<Self, HostError> {
        let configuration: Arc<[u8]> = configuration(network, &model_name, &weights, settings)?.into();
        let image = ProcessImage {
            guest_binary: &binary.bytes,
            command_line: COMMAND_LINE,
            configuration: &configuration,
            weights_sha256: weights,
        };
        let measurements = image.measurements();
        Ok(Self { configuration, weights, model_name, measurements, binary })
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
) -> Result<Vec<u8>, HostError> {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    if model_name.is_empty() || model_name.len() > 128 || !model_name.chars().all(fits) {
        let why = "a model's name is 1 to 128 letters, digits and signs without space, quote or backslash";
        return Err(HostError::Options(why.to_owned()));
    }
    let GuestSettings { max_context, max_running, max_queued, threads, tick_tokens } = settings;
    let weights = hex::encode(weights);
    let text = format!(
        "network = {network}\nmax_context = {max_context}\nmax_running = {max_running}\n\
         max_queued = {max_queued}\nthreads = {threads}\ntick_tokens = {tick_tokens}\n\n\
         [model]\nname = \"{model_name}\"\nweights = \"{weights}\"\n"
    );
    Ok(text.into_bytes())
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
