//! The form of a page: browsers send every field, also empty ones.

use axum::extract::multipart::Field;

use super::{
    Fields, Kind, NAME_BYTES, SentPhoto, check_prompt, clean_label, once, read_image, room,
    sample_metadata, text, unknown_field,
};
use crate::api::http::error::ApiError;
use crate::config::Limits;

impl Fields {
    /// Reads a field of a page's form, unless it is empty.
    pub(super) async fn read_filled(
        &mut self,
        field: Field<'_>,
        name: &str,
        limits: &Limits,
    ) -> Result<(), ApiError> {
        match name {
            "image" | "reference" | "auxiliary" => {
                let bytes = read_image(field, name, limits).await?;
                if bytes.is_empty() {
                    return Ok(());
                }
                let (photos, most) = match name {
                    "image" => return once(&mut self.image, name, bytes),
                    "reference" => (&mut self.references, limits.references),
                    _ => (&mut self.auxiliary, limits.auxiliary),
                };
                room(photos, name, most)?;
                photos.push(SentPhoto::File(bytes));
                Ok(())
            }
            "prompt" | "method" | "run" | "name" | "metadata" | "detectables" => {
                let most = match name {
                    // A browser sends CR and LF for a line break: there is room to trim.
                    "prompt" => limits.prompt_bytes * 2,
                    "metadata" | "detectables" => limits.metadata_bytes,
                    _ => NAME_BYTES,
                };
                let text = text(field, name, most).await?;
                let text = text.trim();
                if text.is_empty() {
                    return Ok(());
                }
                match name {
                    "prompt" => {
                        check_prompt(text, limits)?;
                        once(&mut self.prompt, name, text.to_owned())
                    }
                    "metadata" => {
                        once(&mut self.metadata, name, sample_metadata(text, limits.detectables)?)
                    }
                    "detectables" => {
                        let words = text.split([',', '\n']).map(str::trim);
                        let words = words.filter(|word| !word.is_empty()).map(str::to_owned);
                        self.detectables.extend(words);
                        Ok(())
                    }
                    "method" => once(&mut self.method, name, clean_label(name, text)?),
                    "run" => once(&mut self.run, name, clean_label(name, text)?),
                    _ => once(&mut self.name, name, clean_label(name, text)?),
                }
            }
            _ => Err(unknown_field(name, Kind::Page)),
        }
    }
}
