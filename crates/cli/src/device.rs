//! What tensors are computed on.

use burn::tensor::Device;
use clap::ValueEnum;
use lapidary_kernels::precision::Precision;

use crate::exit::Usage;

/// As `--device` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The kernels of this program
    Cpu,
    /// The first GPU that has a Vulkan driver
    Vulkan,
}

/// The device that was chosen, without gradients.
///
/// # Errors
/// Vulkan is not built in, or the machine has no adapter for it.
pub fn open(choice: Choice) -> Result<Device, Usage> {
    match choice {
        Choice::Cpu => Ok(Device::flex()),
        Choice::Vulkan => vulkan(),
    }
}

#[cfg(not(feature = "vulkan"))]
fn vulkan() -> Result<Device, Usage> {
    Err(Usage::new(
        "--device vulkan: not built in; this binary computes on the CPU only. \
         `cargo build --release --features vulkan` makes one that has it",
    ))
}

#[cfg(feature = "vulkan")]
fn vulkan() -> Result<Device, Usage> {
    // GPUs come before adapters that are software.
    let adapters = Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec();
    adapters.into_iter().next().ok_or_else(|| {
        Usage::new(
            "--device vulkan: no adapter found; install the GPU's Vulkan driver (`vulkaninfo --summary` lists what \
             there is), or leave --device out to compute on the CPU",
        )
    })
}

/// What results call a device: `cpu`, or `vulkan` and the adapter's name.
pub fn name(device: &Device) -> String {
    #[cfg(feature = "vulkan")]
    if let Some(adapter) = device.identity() {
        return format!("vulkan, {}", adapter.name);
    }
    let _ = device;
    "cpu".into()
}

/// Whether a device has matrix products in a precision.
///
/// # Errors
/// It would compute them in another one: Vulkan runs the plain bodies of the operators, which know f32 only.
pub fn check(device: &Device, precision: Precision) -> Result<(), Usage> {
    if *device == Device::flex() || precision == Precision::F32 {
        return Ok(());
    }
    Err(Usage::new(format!(
        "finetune.precision = \"{precision}\": --device vulkan multiplies in f32 only; set it to f32, or leave --device \
         out"
    )))
}

/// What a result has to say of a device.
pub fn note(device: &Device) -> Option<String> {
    (*device != Device::flex()).then(|| {
        format!(
            "Computed on {}, by operators made of ordinary tensor operations, products in f32. Peak memory is the \
             process's, without what lay on the adapter.",
            name(device)
        )
    })
}
