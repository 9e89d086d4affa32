//! What computes in the CPU's place: `[engine] kind = "cuda"`.
//!
//! The calls of NVIDIA's driver are in `cocoon-kernels`, and in this program only if it was built with the feature `cuda`.
//! **Nothing of it has run on a GPU.**

use cocoon_engine::{Accelerator, AcceleratorError, Model, Needs};

/// Opens a device with a model on it. It is called on the thread that will drive the device.
pub type OpenDevice = Box<dyn FnOnce(&Model, Needs) -> Result<Box<dyn Accelerator>, AcceleratorError> + Send>;

/// What may compute here: gives the opener of the device of this number, or says why there is none.
pub type Devices<'d> = &'d dyn Fn(u32) -> Result<OpenDevice, AcceleratorError>;

/// The GPUs of this machine.
///
/// # Errors
/// This program was built without them.
pub fn cuda(number: u32) -> Result<OpenDevice, AcceleratorError> {
    #[cfg(not(feature = "cuda"))]
    {
        Err(AcceleratorError::new(format!(
            "this program was built without CUDA, and cannot use GPU {number}: build it with `cargo build --release -p \
             cocoon-guest --features cuda`, or leave [engine] out to compute on the CPU"
        )))
    }
    #[cfg(feature = "cuda")]
    {
        let open = move |model: &Model, needs: Needs| {
            let gpu = cocoon_kernels::cuda::Cuda::open(number as usize)
                .map_err(|error| AcceleratorError::new(error.to_string()))?;
            Ok(Box::new(cocoon_kernels::Device::open(gpu, model, needs)?) as Box<dyn Accelerator>)
        };
        Ok(Box::new(open))
    }
}

/// GPUs beside a real TEE that gives no evidence of them: what they see, nobody could vouch for.
///
/// # Errors
/// Always.
pub fn unattested(number: u32) -> Result<OpenDevice, AcceleratorError> {
    Err(AcceleratorError::new(format!(
        "GPU {number} must not compute: NVIDIA's management library is not here, so that no statement of this guest would \
         carry evidence of it; install it, or leave [engine] out to compute on the CPU"
    )))
}
