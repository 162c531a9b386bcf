"""Every default, as Hydra's configuration files; this file makes a build take the directory along."""
