"""What tests share: drawn images, small stores and models, and local servers in the place of remote ones."""
