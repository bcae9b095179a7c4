mod eigen;
mod step;
